"""The server holds two copies of Protocol Buffers, its own and SentencePiece's (cmake/dependencies.cmake). They must not
mix: a function of one that meets an object of the other corrupts memory."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("NSA_BUILD_DIR", ROOT / "build" / "cpu-release")) / "bin"


def dynamic_symbols(program: str, kind: str) -> list[str]:
    listing = subprocess.run(["nm", "-DC", kind, BIN / program], capture_output=True, text=True, check=True).stdout
    # The type information of a class is its name alone: it does not matter which copy is used.
    return [line for line in listing.splitlines() if "google::protobuf" in line and "typeinfo" not in line]


@pytest.mark.parametrize("program", ["nsa-server", "tests/server_test"])
def test_protocol_buffers_come_from_one_copy(program):
    libraries = subprocess.run(["ldd", BIN / program], capture_output=True, text=True, check=True).stdout
    assert "libsentencepiece" in libraries
    if "libprotobuf" in libraries:
        pytest.skip("SentencePiece shares Protocol Buffers with gRPC here")
    assert dynamic_symbols(program, "--undefined-only") == []
    assert dynamic_symbols(program, "--defined-only") == []
