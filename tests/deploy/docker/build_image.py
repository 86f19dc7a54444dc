"""Builds the image of deploy/docker/Dockerfile with buildah and runs it: build_image.py [--target=cpu].

The pinned bases come from registries; here they are replaced (by the Dockerfile's arguments DEBIAN and CUDA) with a
Debian 12 that mmdebstrap installs and with a copy of --toolkit. Every other step is done as it is written. The image is
then run as its user without any capability, on a read-only root with only /tmp writable, and has to answer. Needs root.
What is kept in build/image (the bases, the compiler's cache) only saves time.
"""

import argparse
import json
import os
import pathlib
import subprocess
import time

import debian
import image_run
from dockerfile import DOCKERFILE, ROOT

WORK = ROOT / "build" / "image"
DEBIAN, CUDA = "localhost/nsa-debian:12", "localhost/nsa-cuda:13.0"


def buildah(*arguments, show: bool = False) -> str:
    """Its output, or nothing if that is shown. Layers and mounted caches are in build/image."""
    command = ["buildah", "--root", WORK / "storage", "--runroot", "/run/nsa-image", *arguments]
    (WORK / "tmp").mkdir(parents=True, exist_ok=True)
    result = subprocess.run(command, check=True, text=True, stdout=None if show else subprocess.PIPE,
                            env={**os.environ, "TMPDIR": str(WORK / "tmp")})
    return "" if show else result.stdout.strip()


def make_base(name: str, content: pathlib.Path, target: str):
    """An image of one archive, or of one folder at `target`."""
    if buildah("images", "-q", "--filter", f"reference={name}"):
        return
    container = buildah("from", "scratch")
    buildah("add", container, content, target)
    buildah("commit", "-q", "--rm", container, name)


def make_debian():
    archive = WORK / "debian.tar"
    debian.make(archive)
    make_base(DEBIAN, archive, "/")


def build(target: str, toolkit: pathlib.Path | None) -> str:
    """The name of the image."""
    make_debian()
    if toolkit:
        make_base(CUDA, toolkit.resolve(), "/usr/local/cuda-13.0")
    image = f"localhost/nsa-serve:{target}"
    bases = (f"--build-arg=DEBIAN={DEBIAN}", f"--build-arg=CUDA={CUDA if toolkit else DEBIAN}")
    buildah("build", "--isolation=chroot", "--format=docker", *bases, f"--target={target}", "-t", image,
            "-f", DOCKERFILE, ROOT, show=True)
    buildah("rmi", "--prune", "--force")  # what had the name before
    return image


def prove(image: str) -> dict:
    config = json.loads(buildah("inspect", "--type=image", image))["Docker"]["config"]
    container = buildah("from", "--pull-never", image)
    try:
        return image_run.prove(image_run.Image(pathlib.Path(buildah("mount", container)), config))
    finally:
        buildah("rm", container)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--toolkit", type=pathlib.Path, help="a CUDA toolkit, for --target=cuda")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    image = build(arguments.target, arguments.toolkit)
    seconds = round(time.monotonic() - start)
    print(json.dumps({"image": image, "build_seconds": seconds, **prove(image)}, indent=1))


if __name__ == "__main__":
    main()
