"""How often the block of a planted sentence is read while the answer to it is generated: needle.py BUILD_DIR MODEL_DIR
[RUNS, default 20].

The sentence and the chapter are those of demo.py; number and depth are drawn anew for each run, the same ones in every
call. The server is asked over HTTP, greedily, with "nsa_trace", which tells the blocks that each layer chose for each
token of the answer. Those with digits are counted.
"""

import dataclasses
import json
import pathlib
import random
import sys
import urllib.request

from demo import CHAPTER, FACT, QUESTION, plant, start_server

CONTROL_DISTANCE = 10  # blocks to one that has nothing to do with the answer


class Client:
    def __init__(self, address: str):
        self.address = address

    def open(self, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.urlopen(
            urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}))

    def get(self, path: str) -> dict:
        return json.load(self.open(path))

    def tokens(self, text: str) -> list[int]:
        return json.load(self.open("/tokenize", {"prompt": text}))["tokens"]

    def answer(self, prompt: list[int]) -> tuple[str, list[dict]]:
        """The answer's text, and the traces of its tokens with digits."""
        body = {"prompt": prompt, "max_tokens": 24, "temperature": 0, "stop": "\n", "stream": True, "nsa_trace": True}
        text, entries = "", []
        for line in self.open("/v1/completions", body):
            if not line.startswith(b"data: {"):
                continue
            for choice in json.loads(line[6:])["choices"]:
                text += choice["text"]
                if any(character.isdigit() for character in choice["text"]):
                    entries += choice.get("nsa_trace", [])
        return text, entries


def plant_one(client: Client, chapter: str, number: str, depth: float, block_tokens: int) -> tuple[list[int], set[int]]:
    """The prompt, and the blocks in which the planted sentence is."""
    fact = FACT.format(number=number)
    text = plant(chapter, fact, depth) + QUESTION
    before = text[:text.index(fact)]
    first, end = len(client.tokens(before)), len(client.tokens(before + fact))
    return client.tokens(text), set(range(first // block_tokens, (end - 1) // block_tokens + 1))


def readers(entry: dict, blocks: set[int]) -> set[int]:
    """The layers of which a KV head chose one of the blocks."""
    return {of["layer"] for of in entry["layers"] if any(blocks & set(chosen) for chosen in of["blocks"])}


@dataclasses.dataclass
class Run:
    depth: float
    number: str            # that was planted
    text: str              # of the answer
    blocks: set[int]       # of the planted sentence
    read: list[set[int]]   # for each digit of the answer: the layers that chose one of the blocks
    other: list[set[int]]  # likewise, of blocks CONTROL_DISTANCE further on


def runs(client: Client, nsa: dict, num_runs: int):
    chapter, rng = CHAPTER.read_text(encoding="utf-8"), random.Random(1)
    for _ in range(num_runs):
        number, depth = str(rng.randrange(10000, 100000)), rng.uniform(0.1, 0.6)
        prompt, blocks = plant_one(client, chapter, number, depth, nsa["block_tokens"])
        text, entries = client.answer(prompt)
        others = {block + CONTROL_DISTANCE for block in blocks}
        yield Run(depth, number, text, blocks, [readers(entry, blocks) for entry in entries],
                  [readers(entry, others) for entry in entries])


def measure(client: Client, num_runs: int) -> None:
    nsa = client.get("/v1/models")["data"][0]["nsa"]
    layers = range(nsa["num_layers"])
    num_right, num_read, num_digits, read_by, elsewhere = 0, 0, 0, [0] * len(layers), [0] * len(layers)
    print("run  depth  block  answer    digits for which a layer chose the block, layer 0 first")
    for i, run in enumerate(runs(client, nsa, num_runs), 1):
        counts = [sum(layer in by for by in run.read) for layer in layers]
        num_right += run.number in run.text
        num_read += bool(run.read) and all(run.read)
        num_digits += len(run.read)
        for layer in layers:
            read_by[layer] += counts[layer] == len(run.read)
            elsewhere[layer] += sum(layer in by for by in run.other)
        name = "-".join(map(str, sorted(run.blocks)))
        print(f"{i:>3}  {run.depth:>5.0%}  {name:<5}  {run.text.strip():<8}  {counts} of {len(run.read)}", flush=True)
    shares = ", ".join(f"{count / num_digits:.0%}" for count in elsewhere)
    print(f"\nThe number was found in {num_right} of {num_runs} runs.\n"
          f"For every digit of the answer some layer chose the block in {num_read} of {num_runs} runs; "
          f"by layer, layer 0 first: {read_by}.\n"
          f"A block {CONTROL_DISTANCE} further on was chosen for {shares} of the digits.")


def main() -> int:
    build, model = pathlib.Path(sys.argv[1]), sys.argv[2]
    server, address = start_server(build, model, "HTTP")
    try:
        measure(Client(address), int(sys.argv[3]) if len(sys.argv) > 3 else 20)
    finally:
        server.terminate()
        server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
