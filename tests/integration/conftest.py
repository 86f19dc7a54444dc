import pathlib
import sys

import pytest
from grpc_tools import protoc

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import server_process  # noqa: E402
from console_browser import chromium, serve, visit  # noqa: E402, F401


PROTO = server_process.ROOT / "proto"


@pytest.fixture(scope="session")
def api(tmp_path_factory):
    """The generated messages and stubs."""
    out = tmp_path_factory.mktemp("generated")
    assert protoc.main(["protoc", f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}",
                        "nsa/v1/generation.proto"]) == 0
    sys.path.insert(0, str(out))
    from nsa.v1 import generation_pb2, generation_pb2_grpc
    return generation_pb2, generation_pb2_grpc


@pytest.fixture(scope="session")
def server():
    """The bundled model behind one server, shared by all tests that leave it idle."""
    running = server_process.ServerProcess()
    yield running
    assert running.terminate() == 0, "".join(running.stderr_lines)
