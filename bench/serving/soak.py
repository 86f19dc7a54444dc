"""Mixed calls for a long time, of which 30 % are left by their clients: soak.py [--seconds=1800].

Over HTTP and gRPC at once, with calls of random lengths. At the end nothing may be held, the counters must add up, and
resident memory must not have grown. Exit status 1 if something did not hold. docs/reliability.md has the figures.
"""

import argparse

import harness

LOADS = (("--endpoint=completions", "--concurrency=6", "--seed=1"),
         ("--endpoint=completions", "--words", "--rate=2", "--seed=2"),
         ("--concurrency=4", "--seed=3"))  # the last one over gRPC
LENGTHS = ("--prompt-tokens=~96*0.9", "--output-tokens=~48*0.8", "--timeout=600")
WARM_UP_SHARE = 0.4  # of the time: the prefix cache fills, the allocator finds its level
CACHE = "64MiB"  # small, so that all of it is in use soon
MAX_SLOPE_MIB_PER_HOUR = 8
RESULTS = ("stop", "length", "abort", "timeout", "error")


def conservation(metrics: dict[str, float], loads: list[dict]) -> dict[str, bool]:
    """What the counters must say once everything has ended."""
    ended = {reason: harness.series_sum(metrics, "vllm:request_success_total", f'finished_reason="{reason}"')
             for reason in RESULTS}
    answered = sum(load["outcomes"]["ok"] for load in loads)
    cancelled = sum(load["outcomes"]["cancelled"] for load in loads)
    generated = harness.series_sum(metrics, "vllm:generation_tokens_total")
    total = sum(ended.values())
    return {
        "every call that was answered whole is counted so": answered <= ended["stop"] + ended["length"],
        # A client may leave before its request is read, or after the answer is complete.
        "no more requests ended than calls were made": answered <= total <= answered + cancelled,
        "no request timed out or failed": ended["timeout"] + ended["error"] == 0,
        "every request that ended is in the latency histogram":
            total == harness.series_sum(metrics, "vllm:e2e_request_latency_seconds_count"),
        "tokens generated are those of the requests":
            generated == harness.series_sum(metrics, "vllm:request_generation_tokens_sum"),
        "the clients got no token that was not generated": sum(load["output_tokens"] for load in loads) <= generated,
        "all gauges are 0": not any(harness.gauges(metrics).values()),
    }


def run(seconds: float, cancel: float, threads: int) -> tuple[dict, dict[str, bool]]:
    flags = (*LENGTHS, f"--duration={seconds}", f"--cancel={cancel}")
    with harness.model_server(f"--threads={threads}", f"--kv-cache-bytes={CACHE}") as server:
        with harness.RssLog(server) as rss:
            running = [harness.start_load(server.grpc if i == len(LOADS) - 1 else server.http, *load, *flags)
                       for i, load in enumerate(LOADS)]
            loads = [harness.finish_load(load) for load in running]
        server.wait_until_idle()
        metrics = server.metrics()
        code = server.stop()
    slope = rss.slope_mib_per_hour(WARM_UP_SHARE)
    outcomes = {name: sum(load["outcomes"][name] for load in loads) for name in loads[0]["outcomes"]}
    statuses = {}
    for load in loads:
        for status, count in load["statuses"].items():
            statuses[status] = statuses.get(status, 0) + count
    codes = {key: value for key, value in metrics.items() if key.startswith("nsa_http_requests_total") and value}
    figures = {"outcomes": outcomes, "statuses": statuses,
               "output_tokens": sum(load["output_tokens"] for load in loads),
               "rss_mib": [round(rss.at(share / 10), 1) for share in range(11)], "slope_mib_per_hour": slope,
               "server_codes": codes, "preemptions": harness.series_sum(metrics, "vllm:num_preemptions_total")}
    good = outcomes["ok"] + outcomes["cancelled"]
    checks = {
        "calls were answered and cancelled": outcomes["ok"] > 0 and outcomes["cancelled"] > 0,
        "nothing else became of a call": sum(outcomes.values()) == good,
        "no 5xx by the server's own count": not any('code="5' in key for key in codes),
        **conservation(metrics, loads),
        "the server ends properly": code == 0,
    }
    if seconds >= 600:  # or there is no line to speak of
        checks[f"memory grows by less than {MAX_SLOPE_MIB_PER_HOUR} MiB an hour"] = slope < MAX_SLOPE_MIB_PER_HOUR
    return figures, checks


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--cancel", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=2, help="of the model")
    arguments = parser.parse_args()
    figures, checks = run(arguments.seconds, arguments.cancel, arguments.threads)
    return harness.report(checks, figures)


if __name__ == "__main__":
    raise SystemExit(main())
