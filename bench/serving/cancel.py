"""How soon a client's leaving is felt: cancel.py [--calls=30].

A client closes its connection while its call waits, is in prefill or is in decode; the time until /metrics says that
nothing of it is left, one scrape included. docs/reliability.md has the figures.
"""

import argparse
import http.client
import json
import statistics
import time

import harness

PROMPT_TOKENS, LONG_PROMPT_TOKENS, OUTPUT_TOKENS = 64, 6000, 1500
PREFILL_S = 0.3  # into the prefill of the long prompt, which takes seconds


class Stream:
    """A streamed call whose client can leave."""

    def __init__(self, server: harness.Server, num_prompt_tokens: int, first_id: int):
        self.connection = http.client.HTTPConnection(server.http.removeprefix("http://"))
        # Prompts differ, or the prefix cache would have them.
        prompt = [300 + (first_id * 7919 + i * 31) % 4000 for i in range(num_prompt_tokens)]
        body = {"prompt": prompt, "max_tokens": OUTPUT_TOKENS, "ignore_eos": True, "stream": True}
        self.connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        self.answer = self.connection.getresponse()

    def read_events(self, count: int):
        while count > 0:
            count -= self.answer.readline().startswith(b"data: {")

    def leave(self):
        self.answer.close()
        self.connection.close()


def ms_until(server: harness.Server, is_met) -> float:
    start = time.monotonic()
    while not is_met(server.metrics()):
        if time.monotonic() > start + 60:
            raise RuntimeError("nothing happened within a minute")
    return 1000 * (time.monotonic() - start)


def at_rest(metrics: dict[str, float]) -> bool:
    return not any(harness.gauges(metrics).values())


def leave_in_decode(server: harness.Server, call: int) -> float:
    stream = Stream(server, PROMPT_TOKENS, call)
    stream.read_events(5)
    stream.leave()
    return ms_until(server, at_rest)


def leave_in_prefill(server: harness.Server, call: int) -> float:
    stream = Stream(server, LONG_PROMPT_TOKENS, call)
    time.sleep(PREFILL_S)
    tokens = harness.series_sum(server.metrics(), "vllm:prompt_tokens_total")
    stream.leave()
    elapsed = ms_until(server, at_rest)
    if harness.series_sum(server.metrics(), "vllm:prompt_tokens_total") != tokens:
        raise RuntimeError("the prefill was over before the client left")
    return elapsed


def leave_the_queue(server: harness.Server, call: int) -> float:
    running = Stream(server, PROMPT_TOKENS, call)
    running.read_events(1)
    waiting = Stream(server, PROMPT_TOKENS, call + 1_000_000)
    ms_until(server, lambda metrics: harness.gauges(metrics)["waiting"] == 1)
    waiting.leave()
    elapsed = ms_until(server, lambda metrics: harness.gauges(metrics)["waiting"] == 0)
    running.leave()
    server.wait_until_idle()
    return elapsed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=30)
    arguments = parser.parse_args()
    print("| the client leaves | median ms | max ms | a step takes, mean ms |\n|---|---|---|---|")
    for title, leave in (("the queue", leave_the_queue), ("in prefill", leave_in_prefill), ("in decode", leave_in_decode)):
        with harness.model_server("--max-num-seqs=1") as server:
            times = [leave(server, call) for call in range(arguments.calls)]
            metrics = server.metrics()
            step_ms = 1000 * (harness.series_sum(metrics, "nsa_step_duration_seconds_sum")
                              / harness.series_sum(metrics, "nsa_step_duration_seconds_count"))
            server.stop()
        print(f"| {title} | {statistics.median(times):.1f} | {max(times):.1f} | {step_ms:.1f} |", flush=True)


if __name__ == "__main__":
    main()
