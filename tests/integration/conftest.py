import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import server_process  # noqa: E402


@pytest.fixture(scope="session")
def server():
    """The bundled model behind one server, shared by all tests that leave it idle."""
    running = server_process.ServerProcess()
    yield running
    assert running.terminate() == 0, "".join(running.stderr_lines)
