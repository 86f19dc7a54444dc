"""Short chats beside one long prompt: fairness.py [--long-tokens=65000] [--values=64,512].

For each value of --max-batched-tokens: the gaps between the chats' tokens alone, and while the long prompt is being
computed; and how long that takes. docs/performance.md has the figures.
"""

import argparse
import json
import pathlib
import tempfile
import time

import harness

CHATS = ("--concurrency=4", "--prompt-tokens=32..64", "--output-tokens=64", "--ignore-eos", "--seed=3")


def long_context_model(folder: pathlib.Path, max_tokens: int) -> pathlib.Path:
    """The bundled model with a longer context than it was trained for: what it says is of no interest here."""
    for file in harness.MODEL.iterdir():
        if file.name != "config.json":
            (folder / file.name).symlink_to(file)
    config = json.loads((harness.MODEL / "config.json").read_text())
    config["max_position_embeddings"] = max_tokens
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def measure(model: pathlib.Path, max_batched_tokens: int, long_tokens: int, seconds: float) -> dict:
    with harness.model_server(f"--max-batched-tokens={max_batched_tokens}", "--kv-cache-bytes=384MiB",
                              model=model) as server:
        chats = (server.http, f"--duration={seconds}", *CHATS)
        harness.run_load(server.http, "--calls=8", *CHATS)  # warm-up
        alone = harness.run_load(*chats)
        long_load = harness.start_load(server.http, "--concurrency=1", "--calls=1", f"--prompt-tokens={long_tokens}",
                                       "--output-tokens=1", "--timeout=3600")
        time.sleep(2)
        beside = harness.run_load(*chats)
        if long_load.poll() is not None:
            raise RuntimeError("the long prompt was done before the chats: use fewer --seconds")
        long = harness.finish_load(long_load)
    for load in (alone, beside, long):
        if load["outcomes"]["ok"] != sum(load["outcomes"].values()):
            raise RuntimeError(f"calls failed: {load['outcomes']}")
    return {"alone": alone, "beside": beside, "long_s": long["e2e_ms"]["max"] / 1000}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--long-tokens", type=int, default=65000)
    parser.add_argument("--values", default="64,512")
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    print("| --max-batched-tokens | chats | ITL p50 ms | p90 | p99 | max | TTFT p50 ms | p99 |"
          f" first token of {arguments.long_tokens:,}, s |\n|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        model = long_context_model(pathlib.Path(folder), arguments.long_tokens + 1024)
        for value in map(int, arguments.values.split(",")):
            result = measure(model, value, arguments.long_tokens, arguments.seconds)
            for title, long_s in (("alone", ""), ("beside", f"{result['long_s']:.0f}")):
                itl, ttft = result[title]["itl_ms"], result[title]["ttft_ms"]
                print(f"| {value} | {title} | {itl['p50']:.1f} | {itl['p90']:.1f} | {itl['p99']:.1f} | {itl['max']:.1f} |"
                      f" {ttft['p50']:.0f} | {ttft['p99']:.0f} | {long_s} |", flush=True)


if __name__ == "__main__":
    main()
