"""The image's last stage without a container engine: its RUN in a Debian 12, its COPYs from this checkout and build.

`make test-image` also builds the binaries in their stage, which takes a quarter of an hour.
"""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import debian
import dockerfile
import image_run
import pytest
from dockerfile import ROOT

STAGES = dockerfile.parse(dockerfile.DOCKERFILE.read_text())
IMAGE = [instruction for stage in dockerfile.chain(STAGES, "cpu") for instruction in stage.instructions]
BUILD = pathlib.Path(os.environ.get("NSA_BUILD_DIR", ROOT / "build" / "cpu-release"))


def installed(stage: str, folder: pathlib.Path) -> pathlib.Path:
    """What the stage's `install` puts into /out, of the build under test."""
    [run] = [instruction.text for instruction in {s.name: s for s in STAGES}[stage].of("RUN")]
    [command] = re.findall(r"\binstall -D [^&]*", run)
    command = command.replace(f"build/{stage.removeprefix('build-')}-release", str(BUILD)).replace("/out", str(folder))
    subprocess.run(command, shell=True, check=True, cwd=ROOT)
    return folder


def copy(source: pathlib.Path, target: pathlib.Path):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def carry_out(instruction: dockerfile.Instruction, root: pathlib.Path, scratch: pathlib.Path):
    """A COPY."""
    *sources, target = instruction.words()
    place = root / target.lstrip("/")
    for source in sources:
        if stages := instruction.flags.get("from"):
            assert source == "/out/"
            shutil.copytree(installed(stages[0], scratch / stages[0]), place, dirs_exist_ok=True)
            continue
        for file in dockerfile.select(dockerfile.context(), source):
            below = pathlib.Path(file).relative_to(source) if file != source else pathlib.Path(file).name
            copy(ROOT / file, place / below if target.endswith("/") else place)


@pytest.fixture(scope="module")
def image():
    if not shutil.which("mmdebstrap"):
        pytest.skip("mmdebstrap is missing: tools/install_packages.sh test")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        pytest.skip("only who may mount can make a root read-only: run as root")
    names = [instruction.name for instruction in IMAGE if instruction.name in ("RUN", "COPY")]
    assert names == sorted(names, reverse=True), "a RUN behind a COPY would see its files"
    runs = [instruction.text for instruction in IMAGE if instruction.name == "RUN"]
    archive = ROOT / "build" / "image" / f"runtime-{hashlib.sha256(repr(runs).encode()).hexdigest()[:16]}.tar"
    debian.make(archive, *runs)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "root"
        root.mkdir(mode=0o755)
        subprocess.run(["tar", "-xpf", archive, "-C", root, "--exclude=./dev/*"], check=True)
        for instruction in IMAGE:
            if instruction.name == "COPY":
                carry_out(instruction, root, pathlib.Path(folder))
        yield image_run.Image(root, dockerfile.image_config(STAGES, "cpu"))


def test_it_runs_as_its_user_without_capabilities_on_a_read_only_root(image):
    image_run.prove(image)


@pytest.mark.parametrize("name, message", [("usr/bin/gcc", "usr/bin/gcc"),
                                           ("usr/lib/x86_64-linux-gnu/libre2.so.9", "not found")])
def test_the_proof_sees_a_compiler_and_a_missing_library(image, name, message):
    path = image.root / name
    kept = path.with_name("kept")
    if path.exists():
        path.rename(kept)
    else:
        shutil.copy(image.root / "usr/bin/true", path)
    try:
        with pytest.raises(AssertionError, match=message):
            image_run.check_files(image)
    finally:
        path.unlink(missing_ok=True)
        if kept.exists():
            kept.rename(path)
