"""tools/needle.py: the bundled model reads the planted sentence's block while it answers. docs/console.md has 20 runs.
"""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
for folder in ("tests/integration", "tools"):
    sys.path.insert(0, str(ROOT / folder))

import needle  # noqa: E402
from server_process import ServerProcess  # noqa: E402

NUM_RUNS = 3


@pytest.fixture(scope="module")
def client():
    server = ServerProcess()
    yield needle.Client(server.http)
    assert server.terminate() == 0


def test_the_block_is_chosen_for_every_digit(client):
    nsa = client.get("/v1/models")["data"][0]["nsa"]
    chosen_elsewhere = []
    for run in needle.runs(client, nsa, NUM_RUNS):
        assert run.number in run.text, run
        assert len(run.read) >= len(run.number) and all(run.read), run
        chosen_elsewhere += [bool(layers) for layers in run.other]
    assert not all(chosen_elsewhere), "what is always chosen says nothing"
