"""How long a scrape of /metrics takes while the server is loaded: scrape.py [--scrapes=1000] [--realtime].

Streams keep the batch full; the scrapes come one after another on a connection of their own. What is measured is the
whole exchange as a scraper sees it. The same of /health says what the loaded machine costs without the metrics. Exit
status 1 if a goal was missed.
"""

import argparse
import http.client
import os
import statistics
import time
import urllib.parse

import harness

NUM_STREAMS = 16
PAUSE_S = 0.02
SCRAPE_MS = 10


def times_ms(address: str, path: str, num_exchanges: int) -> tuple[list[float], int]:
    """The times of all exchanges, ascending, and the bytes of the last answer."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc)
    times, answer = [], b""
    for _ in range(num_exchanges):
        start = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse().read()
        times.append(1000 * (time.perf_counter() - start))
        time.sleep(PAUSE_S)
    return sorted(times), len(answer)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scrapes", type=int, default=1000)
    parser.add_argument("--realtime", action="store_true", help="needs root: for a machine that has other work")
    arguments = parser.parse_args()
    prefix = ("chrt", "-f", "1") if arguments.realtime else ()
    server = harness.model_server(prefix=prefix)
    if arguments.realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    load = harness.start_load(server.http, f"--concurrency={NUM_STREAMS}", "--calls=1000000", "--output-tokens=200")
    time.sleep(2)  # until the batch is full
    print(f"{arguments.scrapes} exchanges, {NUM_STREAMS} streams beside them; ms\n\n"
          "| GET | bytes | p50 | p90 | p99 | max |\n|---|---|---|---|---|---|")
    for path in ("/health", "/metrics"):
        times, num_bytes = times_ms(server.http, path, arguments.scrapes)
        p90, p99 = (times[int(share * len(times))] for share in (0.9, 0.99))
        print(f"| {path} | {num_bytes} | {statistics.median(times):.2f} | {p90:.2f} | {p99:.2f} | {times[-1]:.2f} |",
              flush=True)
    busy = load.poll() is None
    load.kill()
    load.wait()
    server.stop()
    return harness.report({"the load lasted": busy, f"a scrape takes less than {SCRAPE_MS} ms (p99)": p99 < SCRAPE_MS})


if __name__ == "__main__":
    raise SystemExit(main())
