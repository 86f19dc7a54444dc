"""Draws the model card's plots and writes its tables from the logs and evaluations.

    python -m nsa_torch.plot --results results --output models/NAME

`results` holds trunk/, nsa/ and full/, each with the log.jsonl of its stages, and NAME/NAME.json of evaluate.
"""

import argparse
import json
import pathlib

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

COLOURS = {"trunk": "0.5", "nsa": "tab:blue", "full": "tab:orange"}
LABELS = {"trunk": "shared trunk (full attention)", "nsa": "NSA", "full": "full attention"}


def read_log(path: pathlib.Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


def series(lines: list, key: str, start_tokens: int, batch_tokens: int) -> list:
    """(tokens so far, value) over the stages of one log, in order."""
    points, base, stage, last = [], start_tokens, None, 0
    for line in lines:
        if line["stage"] != stage:
            base, stage, last = base + last, line["stage"], 0
        last = max(last, line.get("tokens", line.get("step", 0) * batch_tokens))
        if key in line:
            points.append((base + last, line[key]))
    return points


def all_series(results: pathlib.Path, key: str, batch_tokens: int = 65536) -> dict:
    logs = {name: read_log(results / name / "log.jsonl") for name in ("trunk", "nsa", "full")}
    trunk_tokens = sum(line["tokens"] for line in logs["trunk"] if line.get("done"))
    starts = {"trunk": 0, "nsa": trunk_tokens, "full": trunk_tokens}
    return {name: series(lines, key, starts[name], batch_tokens) for name, lines in logs.items()}


def draw_curves(results: pathlib.Path, path: pathlib.Path) -> None:
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.8))
    panels = [("validation_bits_per_byte", "validation bits per byte (a fixed batch)", (1.19, 1.45)),
              ("digit_accuracy", "answer digits right, training rows", (0, 1.02))]
    for axis, (key, title, limits) in zip(axes, panels):
        for name, points in all_series(results, key).items():
            x, y = [tokens / 1e6 for tokens, _ in points], [value for _, value in points]
            axis.plot(x, y, color=COLOURS[name], label=LABELS[name], linewidth=1.2)
        axis.set(title=title, xlabel="million tokens", ylim=limits)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    inset = axes[1].inset_axes([0.35, 0.15, 0.6, 0.55])
    points = [(tokens / 1e6, value) for tokens, value in all_series(results, "digit_accuracy")["trunk"]]
    inset.plot(*zip(*[point for point in points if point[0] < 60]), color=COLOURS["trunk"])
    inset.set_title("first 60 M", fontsize=8)
    inset.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def draw_retrieval(evaluations: dict, distractors: str, path: pathlib.Path) -> None:
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.4))
    for axis, (name, evaluation) in zip(axes, evaluations.items()):
        grid = evaluation["retrieval"][distractors]
        values = [cell["answers_by_depth"] for cell in grid.values()]
        axis.imshow(values, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
        for row, cells in enumerate(values):
            for column, value in enumerate(cells):
                axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7)
        axis.set_yticks(range(len(grid)), [f"{length} tokens" for length in grid])
        axis.set_xticks([0, 4.5, 9], ["start", "depth of the fact", "end"])
        axis.set_title(f"{LABELS[name]}: whole answers right, %")
    chosen = {length: cell["branches"]["fact_block_chosen"]
              for length, cell in evaluations["nsa"]["retrieval"][distractors].items()}
    for length, values in chosen.items():
        axes[2].plot(range(len(values)), values, marker="o", label=f"{length} tokens")
    axes[2].set(title="NSA: the fact's block is chosen", xlabel="layer", ylim=(0, 1.05))
    axes[2].legend(fontsize=7)
    axes[2].grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def depth_table(evaluations: dict, distractors: str) -> str:
    depths = [f"{10 * i}-{10 * i + 10} %" for i in range(10)]
    lines = ["| model | length | all depths | digits | " + " | ".join(depths) + " |",
             "|---|---|---|---|" + "---|" * 10]
    for name, evaluation in evaluations.items():
        for length, cell in evaluation["retrieval"][distractors].items():
            by_depth = " | ".join(percent(value) for value in cell["answers_by_depth"])
            lines.append(f"| {name} | {length} | **{percent(cell['answers'])}** | "
                         f"{percent(cell['digits'])} | {by_depth} |")
    return "\n".join(lines)


def distance_table(evaluations: dict, distractors: str, length: str) -> str:
    bins = sorted({int(low) for evaluation in evaluations.values()
                   for low in evaluation["retrieval"][distractors][length]["by_distance"]})
    lines = ["| model | " + " | ".join(f"{low}-{2 * low - 1}" for low in bins) + " |",
             "|---|" + "---|" * len(bins)]
    for name, evaluation in evaluations.items():
        cells = evaluation["retrieval"][distractors][length]["by_distance"]
        shown = [cells.get(str(low)) for low in bins]
        lines.append(f"| {name} | " + " | ".join(f"{percent(c[0])} ({c[1]})" if c else "-" for c in shown) + " |")
    return "\n".join(lines)


def branch_table(evaluation: dict, distractors: str, lengths) -> str:
    lines = ["| layer | " + " | ".join(f"chosen at {length}" for length in lengths)
             + " | gates at the answer: cmp, sel, win | gates over all tokens |",
             "|---|" + "---|" * (len(lengths) + 2)]
    grid = evaluation["retrieval"][distractors]
    last = grid[lengths[-1]]["branches"]
    for layer in range(len(last["fact_block_chosen"])):
        chosen = " | ".join(percent(grid[n]["branches"]["fact_block_chosen"][layer]) for n in lengths)
        gates = [", ".join(f"{value:.3f}" for value in last[key][layer])
                 for key in ("answer_gates_cmp_sel_win", "all_gates_cmp_sel_win")]
        lines.append(f"| {layer} | {chosen} | {gates[0]} | {gates[1]} |")
    return "\n".join(lines)


def short_log(results: pathlib.Path) -> dict:
    keys = ("validation_bits_per_byte", "loss", "digit_accuracy", "answer_loss", "align")
    def thin(points):
        return [[tokens, round(value, 4)] for tokens, value in points[:: max(1, len(points) // 120)]]
    return {key: {name: thin(points) for name, points in all_series(results, key).items()} for key in keys}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    args = parser.parse_args()
    evaluations = {name: json.loads((args.results / name / f"{name}.json").read_text()) for name in ("nsa", "full")}
    draw_curves(args.results, args.output / "training_curves.png")
    draw_retrieval(evaluations, "4", args.output / "retrieval.png")
    (args.output / "evaluation.json").write_text(json.dumps(evaluations, indent=1) + "\n")
    (args.output / "training_log.json").write_text(json.dumps(short_log(args.results)) + "\n")
    lengths = list(evaluations["nsa"]["retrieval"]["0"])
    for distractors in evaluations["nsa"]["retrieval"]:
        print(f"\n{distractors} other facts\n\n{depth_table(evaluations, distractors)}")
        print(f"\n{distance_table(evaluations, distractors, lengths[-1])}")
        print(f"\n{branch_table(evaluations['nsa'], distractors, lengths[2:])}")


if __name__ == "__main__":
    main()
