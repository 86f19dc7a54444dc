"""Files stay small, tests mirror the tree, and nothing outside the repository is named in it."""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAX_HOST_LINES = 400
MAX_KERNEL_LINES = 600


def tracked(*patterns: str) -> list[str]:
    result = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return result.stdout.split()


def test_files_are_within_their_limit():
    too_long = []
    for path in tracked("*.h", "*.cc", "*.cu", "*.cuh", "*.py", "server/http/console/*"):
        is_kernel = path.startswith("kernels/") or path.endswith((".cu", ".cuh"))
        limit = MAX_KERNEL_LINES if is_kernel else MAX_HOST_LINES
        num_lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
        if num_lines > limit:
            too_long.append(f"{path}: {num_lines} lines, limit {limit}")
    assert not too_long, "\n".join(too_long)


def test_every_test_file_names_a_source_file():
    """tests/a/b_test.cc tests a/b.{h,cc}, or stands in the list of tests that span several files.

    Kernels are tested through their contract, so tests/kernels/b_test.cc may stand for kernels/cpu/b.cc.
    """
    spanning = re.compile(r"/(\w*simulation|golden|bit_identity|prefix_sharing|end_to_end|cancel_matrix|\w*fuzz|\w+_edge|\w+_limits|\w+_priority|\w+_trace|\w+_core_edits|simd_target|gpu\w*)_test\.cc$")
    orphans = []
    for path in tracked("tests/*_test.cc"):
        stem = path.removeprefix("tests/").removesuffix("_test.cc")
        stems = (stem, stem.replace("kernels/", "kernels/cpu/", 1))
        candidates = [ROOT / (name + suffix) for name in stems for suffix in (".h", ".cc")]
        if not spanning.search(path) and not any(candidate.exists() for candidate in candidates):
            orphans.append(path)
    assert not orphans, "\n".join(orphans)


def test_no_path_of_a_build_machine_is_named():
    forbidden = re.compile(r"/work/|/opt/build|\.\./shared|/root/|/opt/py")
    found = []
    for path in tracked():
        file = ROOT / path
        if path == "tests/lint/size_test.py" or not file.is_file() or file.stat().st_size > 2_000_000:
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path}: {line.strip()[:100]}" for line in text.splitlines() if forbidden.search(line)]
    assert not found, "\n".join(found)
