"""The tables of docs/performance.md from the JSON that the GPU benchmarks write.

usage: tables.py decode|writes|stages|prefill|full|energy|linear|small RESULTS.json [RESULTS.json]; full takes those of
decode and of prefill, energy its own and those of prefill.
"""

import json
import sys


def load(path: str) -> dict:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def table(header: list[str], rows: list[list[str]]):
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


def ms(row: dict, name: str) -> str:
    return f"{row[name + '_ms']:.2f}" if name + "_ms" in row else "refused"


def matrix(rows: list[dict], cell, **columns):
    """A line per context and head dims, a column per batch that all of them have. `columns` do not depend on it."""
    lines = {}
    for row in rows:
        lines.setdefault((row["d_k"], row["tokens"]), {})[row["batch"]] = row
    batches = sorted(set.intersection(*map(set, lines.values())))
    table(["context", "d", *columns, *(f"batch {batch}" for batch in batches)],
          [[f"{tokens:,}", f"{d_k}/128", *(column(line[batches[0]]) for column in columns.values()),
            *(cell(line[batch]) for batch in batches)] for (d_k, tokens), line in lines.items()])


def decode(path: str):
    rows = sorted(load(path)["rows"], key=lambda row: (row["d_k"], row["tokens"], row["batch"]))
    table(["context", "batch", "NSA us", "FA2 us", "cuDNN us", "faster than the better", "ratio of bytes", "of read"],
          [[f"{row['tokens']:,}", str(row["batch"])] + [f"{row[name + '_us']:.1f}" for name in ("nsa", "fa2", "cudnn")]
           + [f"{row['speedup']:.2f}x", f"{row['byte_ratio']:.1f}x", f"{row['percent_of_read']:.0f} %"]
           for row in rows if row["d_k"] == 128])
    print()
    matrix([row for row in rows if row["d_k"] != 128],
           lambda row: f"{row['nsa_us']:.1f} us, {row['speedup']:.2f}x, {row['percent_of_read']:.0f} %",
           bytes=lambda row: f"{row['byte_ratio']:.1f}x")


def writes(path: str):
    def cell(row: dict, name: str) -> str:
        return f"{row[name + '_apart_us']:.1f}, {row[name + '_us']:.1f}"

    table(["context", "batch", "appends, no span completed", "with attention", "appends, all spans completed", "with attention",
           "attention"],
          [[f"{row['tokens']:,}", str(row["batch"])]
           + [cell(row, name) for name in ("append_none", "layer_none", "append_all", "layer_all")]
           + [f"{row['attention_us']:.1f}"] for row in load(path)["writes"]])


def stages(path: str):
    cases = load(path)["stages"]
    lines = [[stage] + [f"{case['stages'][stage]:.1f}" for case in cases] for stage in cases[0]["stages"]]
    table(["us after the kernel before has ended"] + [f"{case['tokens'] // 1024}k x {case['batch']}" for case in cases],
          lines + [["one launch after the other"] + [f"{case['us']:.1f}" for case in cases]])


def prefill(path: str):
    stages = ("compressed", "choose", "plan", "selected", "merge")
    rows = []
    for row in load(path)["rows"]:
        behind = f" after {row['prefix']:,}" if row["prefix"] else ""
        faster = [f"{row['faster_than_' + name]:.1f}x" if name + "_ms" in row else "-" for name in ("fa2", "cudnn")]
        rows.append([f"{row['tokens']:,}{behind}", f"{row['d_k']}/{row['d_v']}"]
                    + [f"{row['stages_ms'][name]:.2f}" for name in stages]
                    + [ms(row, "nsa"), f"{row['nsa_tflops']:.0f}, {row['percent_of_ceiling']:.0f} %", ms(row, "fa2"),
                       ms(row, "cudnn"), ", ".join(faster)])
    table(["tokens", "d", *stages, "chain", "TF/s, %", "FA2", "cuDNN", "faster than FA2, cuDNN"], rows)


def full(decode_path: str, prefill_path: str):
    def cell(row: dict) -> str:
        best = min(row[name] for name in ("fa2_us", "cudnn_us") if name in row)
        return f"{row['full_us']:.1f} us, {100 * best / row['full_us']:.0f} %"

    matrix(load(decode_path)["rows"], cell)
    print()
    table(["prompt", "d", "ms", "TF/s", "of the better"],
          [[f"{row['tokens']:,}" + (f" after {row['prefix']:,}" if row["prefix"] else ""), f"{row['d_k']}/{row['d_v']}",
            ms(row, "full"), f"{row['full_tflops']:.0f}",
            f"{100 * min(row[name] for name in ('fa2_ms', 'cudnn_ms') if name in row) / row['full_ms']:.0f} %"]
           for row in load(prefill_path)["rows"]])


def energy(path: str, prefill_path: str):
    """J per TFLOP of what has products alone; TFLOP are those of the prefill benchmark's row of 64k tokens."""
    row = next(row for row in load(prefill_path)["rows"] if (row["tokens"], row["d_k"]) == (65536, 128))
    tflop = {name: row["stages_tflops"][name] * row["stages_ms"][name] / 1000 for name in row["stages_tflops"]}
    tflop |= {"chain": row["nsa_tflops"] * row["nsa_ms"] / 1000, "product": 2 * 8192**3 / 1e12}
    tflop |= {name: row[name + "_tflops"] * row[name + "_ms"] / 1000 for name in ("fa2", "cudnn")}
    table(["", "ms", "J", "W", "GHz", "J per TFLOP"],
          [[case["what"], f"{case['ms']:.2f}", f"{case['joules']:.2f}", f"{case['watts']:.0f}", f"{case['mhz'] / 1000:.2f}",
            f"{case['joules'] / tflop[case['what']]:.2f}" if case["what"] in tflop else ""] for case in load(path)["rows"]])


def linear(path: str):
    results = load(path)

    def cell(row: dict, name: str) -> str:
        return f"{row[name]:.1f} ({row['bytes'] / row[name] / results['read_tb_per_s'] / 1e4:.0f} %)"

    table(["product", "tokens", "ours", "cuBLASLt", "ours after a norm", "cuBLASLt after a norm"],
          [[f"{row['product']}, {row['bytes'] / 1e6:.0f} MB", str(row["tokens"]), cell(row, "us"), cell(row, "cublas_us"),
            f"{row['after_norm_us']:.1f}", f"{row['cublas_after_norm_us']:.1f}"] for row in results["rows"]])


def small(path: str):
    """us, with the part of the read bandwidth where it is the limit: per operation and number of tokens or rows; then
    compressed rows, which read each other's inputs."""
    lines, rows = {}, load(path)["rows"]
    for row in (row for row in rows if not row["op"].startswith("compress")):
        lines.setdefault(f"{row['op']}, {row['columns']:,}", {})[row["rows"]] = row
    counts = sorted({count for line in lines.values() for count in line})
    table(["rows of", *(f"{count:,}" for count in counts)],
          [[name, *(f"{line[n]['us']:.1f}" + (f" ({line[n]['percent_of_read']:.0f} %)" if n >= 2048 else "") if n in line else ""
                    for n in counts)] for name, line in lines.items()])
    print()
    table(["compressed rows", "us"], [[str(row["rows"]), f"{row['us']:.1f}"] for row in rows if row["op"].startswith("compress")])


if __name__ == "__main__":
    {"decode": decode, "writes": writes, "stages": stages, "prefill": prefill, "full": full, "energy": energy, "linear": linear,
     "small": small}[sys.argv[1]](*sys.argv[2:])
