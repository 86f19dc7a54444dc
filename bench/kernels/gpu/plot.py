"""The pictures of docs/performance.md from the JSON that the GPU benchmarks write.

usage: plot.py decode|prefill|engine RESULTS.json OUTPUT.png
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def decode(path: str, output: str):
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    square = [row for row in data["rows"] if row.get("d_k", 128) == 128]
    for batch in sorted({row["batch"] for row in square}):
        rows = [row for row in square if row["batch"] == batch]
        tokens = [row["tokens"] / 1024 for row in rows]
        left.plot(tokens, [row["speedup"] for row in rows], marker="o", label=f"batch {batch}")
        right.plot(tokens, [row["percent_of_read"] for row in rows], marker="o", label=f"batch {batch}")
    bytes_row = {row["tokens"] / 1024: row["byte_ratio"] for row in square}
    left.plot(list(bytes_row), list(bytes_row.values()), "k--", label="ratio of bytes")
    left.axhline(1, color="gray", linewidth=0.8)
    left.set_ylabel("times faster than dense (best of FA2, cuDNN)", fontsize=9)
    left.legend()
    right.set_ylabel("% of the fastest read")
    right.set_ylim(0, 100)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("context, Ki tokens")
        axes.grid(alpha=0.3)
    figure.suptitle(f"Decode attention of one layer, {data['device']}")
    figure.tight_layout()
    figure.savefig(output, dpi=110)


def prefill(path: str, output: str):
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    rows = [row for row in data["rows"] if row["prefix"] == 0 and row["d_k"] == row["d_v"]]
    tokens = [row["tokens"] / 1024 for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for name, label in (("fa2", "FlashAttention-2"), ("cudnn", "cuDNN"), ("nsa", "NSA")):
        known = [(n, row[name + "_ms"]) for n, row in zip(tokens, rows) if name + "_ms" in row]
        left.plot(*zip(*known), marker="o", label=label)
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    left.set_xlabel("tokens, Ki")
    left.set_ylabel("ms")
    left.grid(alpha=0.3)
    left.legend()
    names = [name for name in rows[0]["stages_ms"] if max(row["stages_ms"][name] / row["nsa_ms"] for row in rows) > 0.02]
    places = range(len(rows))
    bottom = [0.0] * len(rows)
    for name in names:
        share = [row["stages_ms"][name] / row["tokens"] * 1e6 for row in rows]
        right.bar(places, share, bottom=bottom, label=name)
        bottom = [a + b for a, b in zip(bottom, share)]
    right.plot(places, [row["nsa_ms"] / row["tokens"] * 1e6 for row in rows], "k_", markersize=20, label="the whole chain")
    right.set_xticks(places, [f"{n:.0f}" for n in tokens])
    right.set_xlabel("tokens, Ki")
    right.set_ylabel("ns per token; each stage run by itself")
    right.legend(fontsize=8)
    figure.suptitle(f"Prefill attention of one layer, {data['device']}")
    figure.tight_layout()
    figure.savefig(output, dpi=110)


def engine(path: str, output: str):
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    contexts = sorted({row["context"] for row in data["decode"]})
    for attention, label in (("full", "full attention"), ("nsa", "NSA")):
        rows = [row for row in data["decode"] if row["attention"] == attention]
        best = [max(row["tokens_per_s"] for row in rows if row["context"] == context) for context in contexts]
        line, = left.plot([context / 1024 for context in contexts], best, marker="o", label=f"{label}, best batch")
        single = [row["tokens_per_s"] for context in contexts for row in rows if row["context"] == context and row["batch"] == 1]
        left.plot([context / 1024 for context in contexts], single, "--", marker=".", color=line.get_color(), label=f"{label}, batch 1")
        prefill_rows = [row for row in data["prefill"] if row["attention"] == attention]
        right.plot([row["prompt"] / 1024 for row in prefill_rows], [row["tokens_per_s"] for row in prefill_rows], marker="o", label=label)
    left.set_yscale("log")
    left.set_ylabel("decode tokens/s")
    left.set_xlabel("context, Ki tokens")
    right.set_ylabel("prefill tokens/s, one prompt")
    right.set_xlabel("prompt, Ki tokens")
    right.set_ylim(0)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.suptitle(f"The engine with an 8B-class model, {data['device']}")
    figure.tight_layout()
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    {"decode": decode, "prefill": prefill, "engine": engine}[sys.argv[1]](sys.argv[2], sys.argv[3])
