"""The init container's script and helm test's, run with what their image has: BusyBox and curl; a server answers."""

import contextlib
import functools
import hashlib
import http.server
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading

import pytest

import chart
from chart import flags, only, server

MODEL = chart.ROOT / "models" / "nsa-story-27m"


def archive(folder, mode: str = "w:gz") -> tuple[str, str]:
    """Makes an archive of one file; its path and SHA-256."""
    path = folder / "archive"
    with tarfile.open(path, mode) as tar:
        info = tarfile.TarInfo("nsa/config.json")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"{}"))
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def tools_folder() -> tempfile.TemporaryDirectory:
    """BusyBox' commands, and curl."""
    folder = tempfile.TemporaryDirectory()
    subprocess.run(["busybox", "--install", "-s", folder.name], check=True)
    os.symlink(shutil.which("curl"), f"{folder.name}/curl")
    return folder


def tools() -> str:
    return tools_folder().name


def download(script, folder, url: str, sha256: str, **more) -> subprocess.CompletedProcess:
    folder.mkdir(exist_ok=True)
    environment = {"PATH": tools(), "MODEL_DIR": str(folder), "MODEL_URL": url, "MODEL_SHA256": sha256, **more}
    return subprocess.run([f"{tools()}/sh", str(script)], env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def script(helm, tmp_path_factory):
    """download.sh as the ConfigMap has it."""
    objects = helm.objects(preset="single-gpu")
    path = tmp_path_factory.mktemp("script") / "download.sh"
    path.write_text(only(objects, "ConfigMap")["data"]["download.sh"])
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_model_is_fetched_once(script, tmp_path, mode):
    path, sha256 = archive(tmp_path, mode)
    volume = tmp_path / "volume"
    result = download(script, volume, f"file://{path}", sha256)
    assert result.returncode == 0, result.stderr
    assert (volume / "model" / "nsa" / "config.json").read_text() == "{}"
    assert {item.name for item in volume.iterdir()} == {"model", "checksum"}
    os.remove(path)
    result = download(script, volume, f"file://{path}", sha256)
    assert result.returncode == 0 and "here already" in result.stdout


def test_another_archive_replaces_it(script, tmp_path):
    path, sha256 = archive(tmp_path)
    volume = tmp_path / "volume"
    download(script, volume, f"file://{path}", sha256)
    (volume / "model" / "old").touch()
    with open(path, "ab") as file:
        file.write(b"\0")
    with open(path, "rb") as file:
        result = download(script, volume, f"file://{path}", hashlib.sha256(file.read()).hexdigest())
    assert result.returncode == 0, result.stderr
    assert [item.name for item in (volume / "model").iterdir()] == ["nsa"]


def test_a_wrong_checksum_leaves_nothing(script, tmp_path):
    path, sha256 = archive(tmp_path)
    volume = tmp_path / "volume"
    result = download(script, volume, f"file://{path}", "0" * 64)
    assert result.returncode == 1
    assert f"the archive's SHA-256 is {sha256}, expected {'0' * 64}" in result.stderr
    assert list(volume.iterdir()) == []


def test_what_was_cut_off_is_fetched_again(script, tmp_path):
    """A container killed between unpacking and its last line leaves no checksum."""
    path, sha256 = archive(tmp_path)
    volume = tmp_path / "volume"
    download(script, volume, f"file://{path}", sha256)
    (volume / "checksum").unlink()
    (volume / "model" / "half").touch()
    assert download(script, volume, f"file://{path}", sha256).returncode == 0
    assert not (volume / "model" / "half").exists()


def test_a_missing_archive_fails(script, tmp_path):
    assert download(script, tmp_path / "volume", f"file://{tmp_path}/none", "0" * 64).returncode != 0


class NeedsHeader(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Authorization") == "Bearer let me in":
            super().do_GET()
        else:
            self.send_error(403)

    def log_message(self, *_):
        pass


def test_a_header_is_sent(script, tmp_path):
    path, sha256 = archive(tmp_path)
    header = tmp_path / "header"
    header.write_text("Authorization: Bearer let me in\n")
    handler = functools.partial(NeedsHeader, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{store.server_port}/{os.path.basename(path)}"
        assert download(script, tmp_path / "a", url, sha256).returncode != 0
        result = download(script, tmp_path / "b", url, sha256, HEADER_FILE=str(header))
        store.shutdown()
    assert result.returncode == 0, result.stderr


@contextlib.contextmanager
def served(helm, tmp_path, *more: str):
    """The cpu-demo example's server on free ports, its files where this machine has them; yields its address."""
    objects = helm.objects(preset="cpu-demo")
    own = {"model": str(MODEL), "host": "127.0.0.1", "http-port": "0", "grpc-port": "0", "log-format": "text"}
    arguments = [f"--{name}={own.get(name, value)}" for name, value in flags(objects).items()]
    binary = chart.build_dir() / "bin" / "nsa-server"
    process = subprocess.Popen([str(binary), *arguments, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, env={**os.environ, "HOME": str(tmp_path)})
    try:
        lines = iter(process.stdout.readline, "")
        address = next((line.split()[1] for line in lines if line.startswith("HTTP  ")), None)
        assert address, "the server did not start"
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def smoke(helm, address: str, **more) -> subprocess.CompletedProcess:
    [container] = only(helm.objects(), "Pod")["spec"]["containers"]
    assert container["command"][:2] == ["sh", "-c"]
    command = [f"{tools()}/sh", *container["command"][1:]]
    return subprocess.run(command, env={"PATH": tools(), "BASE_URL": address, **more},
                          capture_output=True, text=True, timeout=120)


def test_the_smoke_test_passes_on_a_live_server(helm, tmp_path):
    with served(helm, tmp_path) as address:
        result = smoke(helm, address)
        assert result.returncode == 0, result.stderr
        assert "nsa-story-27m" in result.stdout and '"finish_reason"' in result.stdout
    assert smoke(helm, address).returncode != 0  # nobody is there any more


def test_the_smoke_test_takes_a_key(helm, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# ours\n\n  first-key-of-two\nsecond-key-of-two\n")
    wrong = tmp_path / "wrong"
    wrong.write_text("another-key\n")
    with served(helm, tmp_path, f"--api-key-file={keys}") as address:
        assert smoke(helm, address, KEY_FILE=str(keys)).returncode == 0
        assert smoke(helm, address, KEY_FILE=str(wrong)).returncode != 0
        assert smoke(helm, address).returncode != 0


def test_probes_answer_before_a_key_is_asked_for(helm, tmp_path):
    """kubelet sends none."""
    keys = tmp_path / "keys"
    keys.write_text("first-key-of-two\n")
    container = server(helm.objects({"apiKeys": {"existingSecret": "k"}}))
    with served(helm, tmp_path, f"--api-key-file={keys}") as address:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            url = address + container[probe]["httpGet"]["path"]
            assert subprocess.run(["curl", "--fail", "--silent", url], capture_output=True, timeout=60).returncode == 0
