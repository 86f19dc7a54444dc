"""Builds an image of deploy/docker/Dockerfile without a container engine and runs it: replay.py [--target=cpu].

Every step of every stage that the target needs is done as a builder does it: FROM is an installed Debian 12 (by
mmdebstrap; its packages are today's, not the pinned image's), RUN runs in a chroot with its own namespaces, COPY takes
the files of a clean checkout that .dockerignore lets in, or those of another stage. The result is then run as its user
without any capability, on a read-only root with only /tmp writable, and has to answer. Needs root. What is kept in
build/image (the Debian root, the compiler's cache) only saves time. NVIDIA's image is a copy of --toolkit.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import dockerfile
import image_run
from dockerfile import ROOT

WORK = ROOT / "build" / "image"
MIRROR = "http://deb.debian.org/debian"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def debian_root() -> pathlib.Path:
    """An archive of what debian:bookworm-slim is made from."""
    archive = WORK / "debian.tar"
    if not archive.exists():
        part = archive.with_suffix(".part.tar")
        security = "http://deb.debian.org/debian-security"
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", part, f"deb {MIRROR} bookworm main",
                        f"deb {MIRROR} bookworm-updates main", f"deb {security} bookworm-security main"], check=True)
        part.rename(archive)
    return archive


class Replay:
    """The roots of the stages built so far, each a folder of build/image/roots."""

    def __init__(self, toolkit: pathlib.Path | None):
        self.toolkit = toolkit
        self.roots: dict[str, pathlib.Path] = {}
        self.states: dict[str, tuple[dict[str, str], str]] = {}  # environment, working folder
        self.times: list[tuple[str, str, float]] = []
        self.context = dockerfile.context()
        shutil.rmtree(WORK / "roots", ignore_errors=True)
        (WORK / "roots").mkdir(parents=True)

    def build(self, stage: dockerfile.Stage):
        for instruction in stage.instructions:
            start = time.monotonic()
            getattr(self, "do_" + instruction.name.lower())(stage, instruction)
            seconds = time.monotonic() - start
            self.times.append((stage.name, f"{instruction.name} {instruction.text}"[:60], seconds))
            print(f"{stage.name:<10} line {instruction.line:<3} {instruction.name:<12} {seconds:7.1f} s", flush=True)

    def do_from(self, stage, _):
        root = WORK / "roots" / stage.name
        if stage.base in self.roots:
            subprocess.run(["cp", "-a", "--reflink=auto", self.roots[stage.base], root], check=True)
        elif stage.base.startswith("debian:bookworm-"):
            root.mkdir()
            subprocess.run(["tar", "-xf", debian_root(), "-C", root], check=True)
        elif stage.base.startswith("nvidia/cuda:13.0") and self.toolkit:
            target = root / "usr" / "local"
            target.mkdir(parents=True)
            subprocess.run(["cp", "-a", self.toolkit.resolve(), target / "cuda-13.0"], check=True)
        else:
            sys.exit(f"{stage.base} cannot be had here")
        self.roots[stage.name] = root
        environment, folder = self.states.get(stage.base, ({"PATH": PATH}, "/"))
        self.states[stage.name] = (dict(environment), folder)

    def do_run(self, stage, instruction):
        root = self.roots[stage.name]
        environment, folder = self.states[stage.name]
        setup = [f"mount -t proc proc {root}/proc"]
        for name in ("resolv.conf", "hosts"):
            (root / "etc" / name).touch()
            setup.append(f"mount --bind /etc/{name} {root}/etc/{name}")
        for mount in instruction.flags.get("mount", []):
            options = dict(option.split("=", 1) for option in mount.split(","))
            assert options["type"] == "cache", mount
            cache = WORK / "cache" / options["target"].strip("/")
            for path in (cache, root / options["target"].strip("/")):
                path.mkdir(parents=True, exist_ok=True)
            setup.append(f"mount --bind {cache} {root}{options['target']}")
        script = " && ".join([*setup, 'exec chroot "$@"'])
        subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", root,
                        "/bin/sh", "-c", f"cd {folder} && {instruction.text}"], check=True, stdin=subprocess.DEVNULL,
                       env={**environment, "HOME": "/"})

    def do_copy(self, stage, instruction):
        *sources, target = instruction.words()
        root, folder = self.roots[stage.name], self.states[stage.name][1]
        path = root / str(pathlib.PurePosixPath(folder) / target).lstrip("/")
        if target.endswith("/") or target == "." or len(sources) > 1:
            path.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        for source in sources:
            if "from" in instruction.flags:
                found = self.roots[instruction.flags["from"][0]] / source.lstrip("/")
                subprocess.run(["cp", "-a", f"{found}/." if found.is_dir() else found, path], check=True)
            else:
                self.copy_context(source, path)

    def copy_context(self, source: str, target: pathlib.Path):
        paths = dockerfile.select(self.context, source)
        assert paths, f"the context has no {source}"
        for path in paths:
            is_file = path == source
            inside = pathlib.Path(path).name if is_file else os.path.relpath(path, source)
            file = target / inside if not is_file or target.is_dir() else target
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, file)  # owned by root, with its mode

    def do_env(self, stage, instruction):
        self.states[stage.name][0].update(instruction.pairs())

    def do_workdir(self, stage, instruction):
        environment, folder = self.states[stage.name]
        folder = str(pathlib.PurePosixPath(folder) / instruction.text)
        (self.roots[stage.name] / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self.states[stage.name] = (environment, folder)

    def do_label(self, *_):
        """Says something about the image; nothing of it runs."""

    do_arg = do_expose = do_user = do_healthcheck = do_entrypoint = do_label


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--toolkit", type=pathlib.Path, help="a CUDA toolkit in place of NVIDIA's image")
    arguments = parser.parse_args()
    start = time.monotonic()
    stages = dockerfile.parse(dockerfile.DOCKERFILE.read_text())
    WORK.mkdir(parents=True, exist_ok=True)
    replay = Replay(arguments.toolkit)
    for stage in dockerfile.needed_stages(stages, arguments.target):
        replay.build(stage)
    built = time.monotonic() - start
    image = image_run.Image(replay.roots[arguments.target], replay.states[arguments.target][0],
                            dockerfile.chain(stages, arguments.target))
    figures = image_run.prove(image)
    print(json.dumps({"target": arguments.target, "build_seconds": round(built, 1), **figures}, indent=1))


if __name__ == "__main__":
    main()
