"""Draws the dashboard from Prometheus without Grafana: draw_panels.py http://127.0.0.1:9090 dashboard.png.

Panels stand where nsa-serve.json puts them, and show what their queries give. Needs matplotlib.
docs/images/dashboard.png was made this way.
"""

import argparse
import json
import math
import pathlib
import re
import time
import urllib.parse
import urllib.request

BOARD = pathlib.Path(__file__).resolve().parent / "nsa-serve.json"
MIB = 2**-20
UNITS = {"percentunit": (100, "%"), "s": (1, "s"), "bytes": (MIB, "MiB"), "Bps": (MIB, "MiB/s"), "reqps": (1, "1/s")}
Found = list[tuple[str, dict]]  # legend, and a series as Prometheus' matrix has it


def load_board() -> dict:
    return json.loads(BOARD.read_text(encoding="utf-8"))


def fill_in(expression: str, rate_interval: str) -> str:
    """A query of the dashboard for every job, model and instance that this Prometheus has."""
    filled = expression.replace("$__rate_interval", rate_interval)
    return re.sub(r"\$(job|model|instance)\b", ".*", filled)


def query(address: str, path: str, **parameters) -> list[dict]:
    """The result of a query; Prometheus answers errors with 4xx, which raises."""
    with urllib.request.urlopen(f"{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:
        return json.load(answer)["data"]["result"]


def legend_of(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match.group(1), ""), template)


def query_panel(address: str, panel: dict, start: float, end: float, step: float, rate_interval: str) -> Found:
    """Of all targets."""
    found = []
    for target in panel["targets"]:
        expression = fill_in(target["expr"], rate_interval)
        for series in query(address, "query_range", query=expression, start=start, end=end, step=step):
            found.append((legend_of(target["legendFormat"], series["metric"]), series))
    return found


def points_of(series: dict) -> list[tuple[float, float]]:
    """Without those that are no number: a rate of nothing."""
    return [(moment, float(value)) for moment, value in series["values"] if math.isfinite(float(value))]


def draw_lines(axes, panel: dict, found, end: float):
    defaults = panel["fieldConfig"]["defaults"]
    factor, unit = UNITS.get(defaults["unit"], (1, ""))
    lines = [(legend, [((moment - end) / 60, value * factor) for moment, value in points_of(series)])
             for legend, series in found if points_of(series)]
    lines = [line for line in lines if any(value for _, value in line[1])] or lines  # legends of what happened
    if defaults["custom"]["stacking"]["mode"] == "normal":
        moments = sorted({moment for _, points in lines for moment, _ in points})
        heights = [[dict(points).get(moment, 0) for moment in moments] for _, points in lines]
        axes.stackplot(moments, heights, labels=[legend for legend, _ in lines], alpha=0.7)
    else:
        for legend, points in lines:
            axes.plot(*zip(*points), label=legend, linewidth=1.2)
    highest = defaults["max"] * factor if "max" in defaults else axes.dataLim.ymax if lines else 0
    axes.set_ylim(0, 1.05 * highest or 1)
    axes.grid(alpha=0.3)
    axes.set_ylabel(unit, fontsize=7)
    if lines:
        axes.legend(fontsize=6, loc="best", ncols=2, framealpha=0.6)


def draw_text(axes, panel: dict, found):
    """A table's labels, or a single number."""
    axes.axis("off")
    if panel["type"] == "stat":
        text, size = "\n".join(f"{points_of(series)[-1][1]:.2f} {legend}" for legend, series in found), 22
    else:
        hidden = {"__name__", "engine"}
        labels = [label for _, series in found for label in sorted(series["metric"].items())]
        text, size = "\n".join(f"{name}: {value}" for name, value in labels if name not in hidden), 8
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=size)


def draw(address: str, minutes: float, rate_interval: str):
    """The dashboard as a figure of matplotlib: the last `minutes`."""
    from matplotlib.figure import Figure
    board, end = load_board(), time.time()
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    figure = Figure(figsize=(15, height * 0.25))
    for panel in board["panels"]:
        place = panel["gridPos"]
        if panel["type"] == "row":
            figure.text(0.03, 1 - (place["y"] + 0.8) / height, panel["title"], fontsize=13, weight="bold")
            continue
        axes = figure.add_axes((place["x"] / 24 + 0.035, 1 - (place["y"] + place["h"] - 1) / height,
                                place["w"] / 24 - 0.045, (place["h"] - 2.2) / height))
        axes.set_title(panel["title"], fontsize=9, loc="left")
        axes.tick_params(labelsize=6)
        found = query_panel(address, panel, end - minutes * 60, end, minutes * 60 / 120, rate_interval)
        if panel["type"] == "timeseries":
            draw_lines(axes, panel, found, end)
            axes.set_xlim(-minutes, 0)
        else:
            draw_text(axes, panel, found)
    return figure


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address", help="of Prometheus")
    parser.add_argument("picture", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate-interval", default="1m", help="at least four times the scrape interval")
    arguments = parser.parse_args()
    figure = draw(arguments.address.rstrip("/"), arguments.minutes, arguments.rate_interval)
    figure.savefig(arguments.picture, dpi=80)


if __name__ == "__main__":
    main()
