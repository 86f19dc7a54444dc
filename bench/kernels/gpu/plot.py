"""The pictures of docs/performance.md from the JSON that the GPU benchmarks write.

usage: plot.py decode RESULTS.json OUTPUT.png
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
    for batch in sorted({row["batch"] for row in data["rows"]}):
        rows = [row for row in data["rows"] if row["batch"] == batch]
        tokens = [row["tokens"] / 1024 for row in rows]
        left.plot(tokens, [row["speedup"] for row in rows], marker="o", label=f"batch {batch}")
        right.plot(tokens, [row["percent_of_read"] for row in rows], marker="o", label=f"batch {batch}")
    bytes_row = {row["tokens"] / 1024: row["byte_ratio"] for row in data["rows"]}
    left.plot(list(bytes_row), list(bytes_row.values()), "k--", label="ratio of bytes")
    left.axhline(1, color="gray", linewidth=0.8)
    left.set_ylabel("times faster than dense (best of FA2, cuDNN)")
    right.set_ylabel("% of the measured read bandwidth")
    right.set_ylim(0, 100)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("context, Ki tokens")
        axes.legend()
        axes.grid(alpha=0.3)
    figure.suptitle(f"Decode attention of one layer, {data['device']}")
    figure.tight_layout()
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    {"decode": decode}[sys.argv[1]](sys.argv[2], sys.argv[3])
