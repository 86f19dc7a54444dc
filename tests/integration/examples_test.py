"""Every block of docs/examples.md runs and prints what it promises."""

import json
import os
import re
import subprocess
import sys

import pytest
from server_process import ROOT, build_dir

PAGE = (ROOT / "docs" / "examples.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the blocks run, one after another."""
    path = tmp_path_factory.mktemp("examples")
    (path / "proto").symlink_to(ROOT / "proto")
    return path


def run(language: str, block: str, server, folder) -> str:
    script = block.replace("http://127.0.0.1:8000", server.http).replace("127.0.0.1:9000", server.grpc)
    script = re.sub(r"^python3 ", f"{sys.executable} ", script, flags=re.MULTILINE)
    script = re.sub(r"nsa-cli (\w+)", rf"nsa-cli \1 --address={server.grpc}", script)
    command = ["bash", "-euo", "pipefail", "-c"] if language == "sh" else [sys.executable, "-c"]
    variables = {**os.environ, "PATH": f"{build_dir() / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run([*command, script], cwd=folder, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("language, block", BLOCKS, ids=[str(i) for i in range(len(BLOCKS))])
def test_a_block_of_the_page_works(server, folder, language, block):
    output = run(language, block, server, folder)
    assert output.strip() or "protoc" in block
    assert '"error"' not in output
    if "guided_json" in block:
        decoder = json.JSONDecoder()
        first, end = decoder.raw_decode(output)
        person, number = first["choices"][0], json.loads(output[end:])["choices"][0]
        assert person["finish_reason"] == "length" or set(json.loads(person["text"])) == {"name", "age"}
        assert re.fullmatch(r"\d{3}-\d{4}", number["text"])
    if '"nsa_trace"' in block:
        assert "layers" in output or re.search(r"^\d+ \[\[0", output, re.MULTILINE)
    if '"stream": true' in block:
        assert output.rstrip().endswith("data: [DONE]")
    if "echo" in block and "logprobs" in block:
        logprobs = json.loads(output)["choices"][0]["logprobs"]["token_logprobs"]
        assert logprobs[0] is None and all(value < 0 for value in logprobs[1:])


def test_the_page_has_every_kind_of_client():
    assert sum(language == "python" for language, _ in BLOCKS) >= 3
    for client in ("curl", "OpenAI(", "grpc.insecure_channel", "nsa-cli"):
        assert any(client in block for _, block in BLOCKS), client
