"""The engine on a GPU, NSA against full attention, with an 8B-class model of random weights, in one run.

Decode: at each context a batch of 1, of 8, the largest that both modes have room for, and each mode's own largest.
Prefill: one prompt at a time, in chunks. Needs Python alone, so that it runs where the bundle runs.

usage: gpu_engine.py GPU_ENGINE_BENCH [--contexts 8192,65536] [--json FILE]
"""

import argparse
import datetime
import json
import subprocess
import sys

# Sequences in the cache at once, by context: more than any mode has room for.
MAX_NUM_SEQS = {8192: 256, 32768: 64, 65536: 32, 131072: 16}


def run(program, attention, context, batches, prompts):
    command = [program, f"--attention={attention}", f"--contexts={context}", f"--batches={batches}", f"--prompts={prompts}",
               f"--max-num-seqs={MAX_NUM_SEQS[context]}"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: {result.stderr.strip()}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def measure(program, contexts):
    prefill, decode = [], []
    for context in contexts:
        rows = {attention: run(program, attention, context, "1,8,0", context) for attention in ("nsa", "full")}
        largest = {attention: max(row["batch"] for row in rows[attention] if "decode" in row) for attention in rows}
        common = min(largest.values())
        for attention in rows:
            if largest[attention] != common:
                rows[attention] += run(program, attention, context, common, "")
        for row in (row for attention in rows for row in rows[attention]):
            kind = "decode" if "decode" in row else "prefill"
            known = {"attention": row.pop(kind), **row}
            if known not in (decode if kind == "decode" else prefill):
                (decode if kind == "decode" else prefill).append(known)
            print(json.dumps({kind: known}), flush=True)
    return {"prefill": prefill, "decode": decode}


def tables(results):
    """Markdown, as docs/performance.md has it."""
    def find(rows, **wanted):
        return next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)

    print("\n| context | batch | NSA ms per step | full ms per step | NSA tokens/s | full tokens/s | faster |\n|---|---|---|---|---|---|---|")
    decode = results["decode"]
    for context in sorted({row["context"] for row in decode}):
        for batch in sorted({row["batch"] for row in decode if row["context"] == context}):
            nsa, full = (find(decode, attention=name, context=context, batch=batch) for name in ("nsa", "full"))
            cells = [f"{row['ms_per_step']:.2f}" if row else "no room" for row in (nsa, full)]
            cells += [f"{row['tokens_per_s']:,.0f}" if row else "" for row in (nsa, full)]
            cells.append(f"{nsa['tokens_per_s'] / full['tokens_per_s']:.2f}x" if nsa and full else "")
            print(f"| {context:,} | {batch} | " + " | ".join(cells) + " |")
    print("\n| prompt | NSA tokens/s | full tokens/s | faster |\n|---|---|---|---|")
    for prompt in sorted({row["prompt"] for row in results["prefill"]}):
        nsa, full = (find(results["prefill"], attention=name, prompt=prompt) for name in ("nsa", "full"))
        print(f"| {prompt:,} | {nsa['tokens_per_s']:,.0f} | {full['tokens_per_s']:,.0f} | {nsa['tokens_per_s'] / full['tokens_per_s']:.2f}x |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--contexts", default=",".join(map(str, MAX_NUM_SEQS)))
    parser.add_argument("--json")
    arguments = parser.parse_args()
    device = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    results = {"device": device.stdout.splitlines()[0] if device.stdout else "a GPU", "command": " ".join(sys.argv),
               "date": datetime.date.today().isoformat(),
               **measure(arguments.program, [int(context) for context in arguments.contexts.split(",")])}
    tables(results)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
