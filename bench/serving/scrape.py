"""How long a scrape of /metrics takes while the server is loaded: scrape.py [--scrapes=1000].

Streams keep the batch full; the scrapes come one after another on a connection of their own. What is measured is the
whole exchange as a scraper sees it. The same of /health says what the machine costs without the metrics: with other
work on its cores, both wait for their turn. Exit status 1 if a goal was missed.
"""

import argparse
import http.client
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
    arguments = parser.parse_args()
    server = harness.model_server()
    load = harness.start_load(server.http, f"--concurrency={NUM_STREAMS}", "--calls=1000000", "--output-tokens=200")
    time.sleep(2)  # until the batch is full
    print(f"{arguments.scrapes} exchanges, {NUM_STREAMS} streams beside them; ms\n\n"
          "| GET | bytes | min | p50 | p90 | p99 | max |\n|---|---|---|---|---|---|---|")
    for path in ("/health", "/metrics"):
        times, num_bytes = times_ms(server.http, path, arguments.scrapes)
        p90, p99 = (times[int(share * len(times))] for share in (0.9, 0.99))
        columns = (times[0], statistics.median(times), p90, p99, times[-1])
        print(f"| {path} | {num_bytes} | {' | '.join(f'{time_ms:.2f}' for time_ms in columns)} |", flush=True)
    busy = load.poll() is None
    load.kill()
    load.wait()
    server.stop()
    return harness.report({"the load lasted": busy, f"a scrape takes less than {SCRAPE_MS} ms (p99)": p99 < SCRAPE_MS})


if __name__ == "__main__":
    raise SystemExit(main())
