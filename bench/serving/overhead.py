"""What the server adds to a model that costs nothing: overhead.py [--seconds=20] [--runs=3] [--realtime].

The server (overhead_server) has one core, the load generator another. Its tokens say when their step was done, so that
the client measures the latency from there to the receipt of each token. Exit status 1 if a goal was missed.
docs/performance.md has the figures.
"""

import argparse
import statistics

import harness

STREAMS, TOKENS_PER_SECOND, OUTPUT_TOKENS = 64, 5000, 512
ADDED_P99_MS = 2


def measure(name: str, step_us: int, num_calls: int, realtime: bool) -> dict:
    """One run. With `realtime` both processes go before every ordinary one of the machine."""
    before = ("chrt", "-f", "1") if realtime else ()
    flags = (f"--concurrency={STREAMS}", f"--output-tokens={OUTPUT_TOKENS}",
             *(("--commit-times",) if name == "http" else ()))
    client = (*before, "taskset", "-c", "1")
    with harness.Server("overhead_server", f"--streams={STREAMS}", f"--step-us={step_us}",
                        prefix=(*before, "taskset", "-c", "0")) as server:
        address = server.grpc if name == "grpc" else server.http
        harness.run_load(address, f"--calls={STREAMS}", *flags, prefix=client)  # warm-up
        cpu = server.cpu_seconds()
        load = harness.run_load(address, f"--calls={num_calls}", *flags, prefix=client)
        load["cpu_us_per_token"] = 1e6 * (server.cpu_seconds() - cpu) / load["output_tokens"]
    if load["outcomes"]["ok"] != num_calls:
        raise RuntimeError(f"calls failed: {load['outcomes']}")
    return load


def medians(runs: list[dict]) -> dict:
    return {"tokens_per_second": statistics.median(run["tokens_per_second"] for run in runs),
            "cpu_us": statistics.median(run["cpu_us_per_token"] for run in runs),
            **{p: statistics.median(run["added_ms"][p] for run in runs) for p in ("p50", "p90", "p99", "max")}}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--realtime", action="store_true", help="needs root: for a machine that has other work")
    arguments = parser.parse_args()
    paced_us = STREAMS * 1_000_000 // TOKENS_PER_SECOND
    num_calls = STREAMS * max(1, round(arguments.seconds * TOKENS_PER_SECOND / OUTPUT_TOKENS / STREAMS))
    print(f"{STREAMS} streams of {OUTPUT_TOKENS} tokens, medians of {arguments.runs} runs; added latency in ms\n\n"
          "| | tokens/s | CPU us per token | added p50 | p90 | p99 | max |\n|---|---|---|---|---|---|---|")
    rows = {}
    for title, name, step_us, calls in ((f"HTTP, a step every {paced_us / 1000} ms", "http", paced_us, num_calls),
                                        ("HTTP, steps take no time", "http", 0, 10 * num_calls),
                                        (f"gRPC, a step every {paced_us / 1000} ms", "grpc", paced_us, num_calls)):
        rows[title] = row = medians([measure(name, step_us, calls, arguments.realtime) for _ in range(arguments.runs)])
        added = [f"{row[p]:.2f}" if name == "http" and step_us else "" for p in ("p50", "p90", "p99", "max")]
        print(f"| {title} | {row['tokens_per_second']:,.0f} | {row['cpu_us']:.1f} | {' | '.join(added)} |", flush=True)
    paced, unpaced, _ = rows.values()
    return harness.report({
        f"{TOKENS_PER_SECOND} tokens/s on one core":
            paced["tokens_per_second"] > 0.99 * TOKENS_PER_SECOND and unpaced["tokens_per_second"] > TOKENS_PER_SECOND,
        f"added latency below {ADDED_P99_MS} ms (p99)": paced["p99"] < ADDED_P99_MS})


if __name__ == "__main__":
    raise SystemExit(main())
