"""Plants a sentence in a long chapter, asks the running server for it, and shows the streamed answer together with the
cache bytes that were read, against what full attention would have read: demo.py BUILD_DIR MODEL_DIR.

The chapter (demo_chapter.txt) is the beginning of Arthur Conan Doyle's "The Five Orange Pips" (1891, public domain).
It belongs to the held-out part of the corpus: the bundled model has not seen it.
"""

import pathlib
import random
import re
import subprocess
import sys

CHAPTER = pathlib.Path(__file__).with_name("demo_chapter.txt")
FACT = "The secret number of the silver lantern is {number}."
QUESTION = "\n\nQuestion: What is the secret number of the silver lantern?\nAnswer:"


def start_server(build: pathlib.Path, model: str, transport: str) -> tuple[subprocess.Popen, str]:
    """The server on free ports, and its address for "gRPC" or "HTTP", once it accepts requests."""
    command = [build / "bin" / "nsa-server", f"--model={model}", "--http-port=0", "--grpc-port=0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in server.stdout:
        match = re.search(rf"{transport}\s+(\S+:\d+)", line)
        if match:
            return server, match.group(1)
    sys.exit("The server did not start; try `make serve` to see why.")


def plant(chapter: str, fact: str, depth: float) -> str:
    """The chapter with the fact as a sentence of its own, between two paragraphs at the given depth."""
    paragraphs = chapter.split("\n\n")
    position = int(depth * len(paragraphs))
    return "\n\n".join(paragraphs[:position] + [fact] + paragraphs[position:])


def main() -> int:
    build, model = pathlib.Path(sys.argv[1]), sys.argv[2]
    number = str(random.SystemRandom().randrange(10000, 100000))
    depth = random.SystemRandom().uniform(0.1, 0.6)
    prompt = plant(CHAPTER.read_text(encoding="utf-8"), FACT.format(number=number), depth) + QUESTION
    prompt_file = build / "demo_prompt.txt"
    prompt_file.write_text(prompt, encoding="utf-8")

    print(f"Planted {depth:.0%} into {len(prompt.split()):,} words of The Five Orange Pips:")
    print(f"    {FACT.format(number=number)}")
    print(f"Asked at the end:{QUESTION}\n", flush=True)
    server, address = start_server(build, model, "gRPC")
    try:
        answer = subprocess.run(
            [build / "bin" / "nsa-cli", "generate", f"--address={address}", f"--file={prompt_file}",
             "--max-tokens=24", "--temperature=0", "--stop=\n"],
            stdout=subprocess.PIPE, text=True)
    finally:
        server.terminate()
        server.wait()
    if answer.returncode != 0:
        return answer.returncode
    print(f"Answer:{answer.stdout.rstrip()}")
    found = re.findall(r"\d+", answer.stdout)[:1] == [number]
    print("The planted number was found." if found else f"Not the planted number ({number}).")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
