"""Debian 12 as an archive, installed by mmdebstrap: what stands in for the Dockerfile's pinned base."""

import os
import pathlib
import subprocess

MIRROR = "http://deb.debian.org"
SOURCES = [f"deb {MIRROR}/debian bookworm main", f"deb {MIRROR}/debian bookworm-updates main",
           f"deb {MIRROR}/debian-security bookworm-security main"]


def make(archive: pathlib.Path, *commands: str):
    """Unless it is there. The commands are run in it, as those of RUN."""
    if archive.exists():
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_suffix(f".{os.getpid()}.tar")
    variables = {f"RUN{i}": command for i, command in enumerate(commands)}
    hooks = [f'--customize-hook=chroot "$1" sh -c "${name}"' for name in variables]
    result = subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", *hooks, "bookworm", part, *SOURCES],
                            env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True)
    assert result.returncode == 0, result.stdout
    part.rename(archive)
