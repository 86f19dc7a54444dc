"""Runs the root of an image as a hardened container engine would, and checks what it promises."""

import contextlib
import os
import pathlib
import re
import socket
import subprocess
import time

import httpx
from dockerfile import ROOT

MODEL = ROOT / "models" / "nsa-story-27m"
BUILD_TOOLS = re.compile(r"^((x86_64-linux-gnu-)?(gcc|g\+\+|cc|c\+\+|cpp|as|ld|ld\.(bfd|gold|lld))(-\d+)?|clang.*|cc1|"
                         r"cc1plus|nvcc|ptxas|make|cmake|ninja|ccache|protoc|python3?(\.\d+)?|curl|wget|git)$")
START_TIMEOUT_S = 60


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Image:
    """A root folder, and the configuration of its image as Docker has it."""

    def __init__(self, root: pathlib.Path, config: dict):
        self.root = root
        self.environment = dict(pair.split("=", 1) for pair in config["Env"])
        self.user = config["User"]
        self.entrypoint = config["Entrypoint"]
        kind, *self.healthcheck = config["Healthcheck"]["Test"]
        assert kind == "CMD"
        self.labels = config["Labels"]

    def command(self, *words: str, mounts: dict[pathlib.Path, str] | None = None) -> list[str]:
        """`words` as the image's user, without capabilities, on a read-only root with a fresh /tmp, /proc and /dev."""
        uid, _, gid = self.user.partition(":")
        root = self.root
        setup = [f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc", f"mount -t tmpfs tmpfs {root}/tmp",
                 f"mount --bind /dev {root}/dev"]
        setup += [f"mount --bind {source} {root}{target}" for source, target in (mounts or {}).items()]
        setup += [f"mount -o remount,bind,ro {root}", 'exec chroot "$@"']
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "sh", "-c", " && ".join(setup), "sh",
                str(root), "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--inh-caps=-all",
                "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs", *words]

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(self.command(*words), env={**self.environment, **environment}, capture_output=True,
                              text=True)

    @contextlib.contextmanager
    def serve(self, *flags: str, mounts=None, **environment: str):
        """(address, environment) of a running server; it has to end with 0 at SIGTERM."""
        ports = {"NSA_HTTP_PORT": str(free_port()), "NSA_GRPC_PORT": str(free_port()), **environment}
        process = subprocess.Popen(self.command(*self.entrypoint, *flags, mounts=mounts),
                                   env={**self.environment, **ports}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True)
        address = f"http://127.0.0.1:{ports['NSA_HTTP_PORT']}"
        try:
            wait_until_ready(address, process)
            yield address, ports, server_pid(process.pid)
        finally:
            for pid in children(process.pid) or [process.pid]:
                os.kill(pid, 15)
            code = process.wait(60)
        assert code == 0, process.stdout.read()


def children(pid: int) -> list[int]:
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def server_pid(pid: int) -> int:
    return (children(pid) or [pid])[0]


def wait_until_ready(address: str, process: subprocess.Popen):
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(address + "/health/ready").status_code == 200:
                return
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.1)


def found_build_tools(root: pathlib.Path) -> list[str]:
    return [str(path.relative_to(root)) for path in (root / "usr").rglob("*")
            if BUILD_TOOLS.match(path.name) and path.is_file() and os.access(path, os.X_OK)]


def status_of(pid: int) -> dict[str, str]:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def check_files(image: Image):
    assert not found_build_tools(image.root), found_build_tools(image.root)
    for program in ("nsa-server", "nsa-cli"):
        listing = image.run("ldd", f"/usr/local/bin/{program}").stdout
        missing = [line for line in listing.splitlines() if "not found" in line]
        assert "libc.so.6" in listing and not missing, missing
    version = image.run(image.entrypoint[0], "--version").stdout
    assert version == f"nsa-server {image.labels['org.opencontainers.image.version']}\n", version
    for path in ("/usr/local/bin/x", "/models/x", "/var/tmp/x", "/x", "/etc/x"):
        assert "Read-only file system" in image.run("touch", path).stderr, f"{path} is not read-only"
    assert image.run("touch", "/tmp/x").returncode == 0


def check_server(image: Image) -> dict:
    with image.serve() as (address, ports, pid):
        status = status_of(pid)
        assert status["Uid"].split() == [image.user.split(":")[0]] * 4 and status["NoNewPrivs"] == "1"
        assert all(int(status[name], 16) == 0 for name in ("CapEff", "CapPrm", "CapBnd"))
        start = time.monotonic()
        body = {"prompt": "Once upon a time", "max_tokens": 32}
        answer = httpx.post(address + "/v1/completions", json=body, timeout=60)
        seconds = time.monotonic() - start
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 32, answer.text
        assert httpx.get(address + "/v1/models").json()["data"][0]["id"] == MODEL.name
        healthy = image.run(*image.healthcheck, **ports)
        assert healthy.returncode == 0, healthy.stderr
        over_grpc = image.run("/usr/local/bin/nsa-cli", "generate", "Once", "--max-tokens=4",
                              f"--address=127.0.0.1:{ports['NSA_GRPC_PORT']}")
        assert over_grpc.returncode == 0 and over_grpc.stdout, over_grpc.stderr
        stopped = {"NSA_HTTP_PORT": str(free_port())}
        assert image.run(*image.healthcheck, **stopped).returncode != 0, "healthy without a server"
    with image.serve("--model=/models", "--served-model-name=other", mounts={MODEL: "/models"}) as (address, *_):
        assert httpx.get(address + "/v1/models").json()["data"][0]["id"] == "other"
    return {"completion_seconds": round(seconds, 2)}


def prove(image: Image) -> dict:
    check_files(image)
    figures = check_server(image)
    size = subprocess.run(["du", "-sm", image.root], capture_output=True, text=True, check=True).stdout.split()[0]
    return {"image_mib": int(size), **figures}
