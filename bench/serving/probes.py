"""How long /health takes while clients keep all threads of HTTP busy: probes.py [--clients=64] [--seconds=20].

Every client sends 1 MiB of text to /tokenize, again and again; each probe has a connection of its own. Exit status 1 if
the goal was missed.
"""

import argparse
import http.client
import json
import statistics
import threading
import time
import urllib.parse

import harness

TEXT_BYTES = 1 << 20
PAUSE_S = 0.02
PROBE_MS = 100


def exchange(netloc: str, method: str, path: str, body: str | None = None) -> int:
    connection = http.client.HTTPConnection(netloc, timeout=300)
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    status = connection.getresponse()
    status.read()
    connection.close()
    return status.status


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    words = "once upon a time there was a little dog "
    body = json.dumps({"prompt": (words * (TEXT_BYTES // len(words) + 1))[:TEXT_BYTES]})
    stop, answers, times_ms = threading.Event(), [], []
    with harness.model_server() as server:
        netloc = urllib.parse.urlsplit(server.http).netloc

        def tokenize():
            while not stop.is_set():
                answers.append(exchange(netloc, "POST", "/tokenize", body))

        clients = [threading.Thread(target=tokenize) for _ in range(arguments.clients)]
        for client in clients:
            client.start()
        end = time.monotonic() + arguments.seconds
        while time.monotonic() < end:
            start = time.perf_counter()
            assert exchange(netloc, "GET", "/health") == 200
            times_ms.append(1000 * (time.perf_counter() - start))
            time.sleep(PAUSE_S)
        stop.set()
        for client in clients:
            client.join()
    times_ms.sort()
    p99 = times_ms[int(0.99 * len(times_ms))]
    figures = {"tokenized": len(answers), "probes": len(times_ms), "p50_ms": statistics.median(times_ms), "p99_ms": p99,
               "max_ms": times_ms[-1]}
    return harness.report({"all texts were tokenized": set(answers) == {200},
                           f"a probe takes less than {PROBE_MS} ms (p99)": p99 < PROBE_MS}, figures)


if __name__ == "__main__":
    raise SystemExit(main())
