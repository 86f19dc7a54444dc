"""Ten times more calls than the server can answer: overload.py [--seconds=300] [--factor=10].

Measures the capacity with a closed loop, then sends Poisson arrivals at `factor` times that rate. Checks that memory is
bounded, that refusals are quick, that nobody who was admitted waits longer than those before it can take, and that
nothing else goes wrong. Exit status 1 if something did not hold. docs/reliability.md has the figures.
"""

import argparse

import harness

MAX_NUM_SEQS, MAX_QUEUED = 16, 64
LENGTHS = ("--prompt-tokens=16..64", "--output-tokens=16..48", "--ignore-eos")
REFUSAL_MS = 10
# Of the wait that the queue alone explains: arrivals are random, and so are lengths.
WAIT_SLACK = 3
CACHE_MIB = 64  # small, so that all of it is in use soon
REST_MIB = 32  # what may come beyond the cache: buffers, the allocator's reserve


def measure_capacity(server: harness.Server, seconds: float) -> float:
    """Calls per second of a server that always has enough to do."""
    load = harness.run_load(server.http, f"--concurrency={MAX_NUM_SEQS}", f"--duration={seconds}", *LENGTHS)
    server.wait_until_idle()
    return load["calls_per_second"]


def run(seconds: float, factor: float, threads: int, max_queued: int = MAX_QUEUED, rest_mib: int = REST_MIB,
        refusal_bound: bool = True) -> tuple[dict, dict[str, bool]]:
    """The figures, and what was promised and held."""
    with harness.model_server(f"--max-num-seqs={MAX_NUM_SEQS}", f"--max-queued-requests={max_queued}",
                              f"--threads={threads}", f"--kv-cache-bytes={CACHE_MIB}MiB") as server:
        rss_idle = server.rss_mib()
        capacity = measure_capacity(server, max(2, seconds / 20))
        with harness.RssLog(server) as rss:
            load = harness.run_load(server.http, f"--rate={factor * capacity}", f"--duration={seconds}", "--seed=2",
                                    *LENGTHS)
        server.wait_until_idle()
        rejected = harness.series_sum(server.metrics(), "vllm:admission_rejections_total")
        code = server.stop()
    outcomes, statuses = load["outcomes"], load["statuses"]
    # Everybody before the last one in the queue, at the rate that was really served.
    longest_wait_ms = 1000 * (MAX_NUM_SEQS + max_queued) / load["calls_per_second"]
    rss_most = max(mib for _, mib in rss.samples)
    figures = {"capacity_calls_per_s": capacity, "offered_calls_per_s": factor * capacity,
               "rss_mib": {"idle": rss_idle, "quarter": rss.at(0.25), "end": rss.at(1), "most": rss_most},
               "wait_bound_ms": WAIT_SLACK * longest_wait_ms, "rejected_by_metrics": rejected, **load}
    checks = {
        "first tokens of all who were admitted within the bound": load["ttft_ms"]["max"] < WAIT_SLACK * longest_wait_ms,
        "who was admitted was answered whole": outcomes["ok"] > 0 and set(statuses) == {"200", "429"},
        "no error but refusals": sum(outcomes.values()) == outcomes["ok"] + outcomes["refused"],
        "the metrics count the refusals": rejected == outcomes["refused"],
        f"memory stays within the idle server's, the cache and {rest_mib} MiB": rss_most < rss_idle + CACHE_MIB + rest_mib,
        "the server ends properly": code == 0,
    }
    if refusal_bound:
        checks[f"refusals within {REFUSAL_MS} ms of their sending (p99)"] = (
            0 < load["refusal_from_sent_ms"]["p99"] < REFUSAL_MS)
    return figures, checks


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--factor", type=float, default=10)
    parser.add_argument("--threads", type=int, default=1, help="of the model; the load needs a core too")
    arguments = parser.parse_args()
    figures, checks = run(arguments.seconds, arguments.factor, arguments.threads)
    return harness.report(checks, figures)


if __name__ == "__main__":
    raise SystemExit(main())
