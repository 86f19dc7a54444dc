"""docs/security.md names a test for every class of attack; each of them exists."""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASE = re.compile(r"^(?:TEST|TEST_F|TEST_P|TYPED_TEST)\(\s*(\w+),\s*(\w+)\s*\)", re.MULTILINE)


def known_tests() -> set[str]:
    listing = subprocess.run(["git", "ls-files", "tests/*.cc"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {f"{suite}.{name}" for path in listing.stdout.split()
            for suite, name in CASE.findall((ROOT / path).read_text(encoding="utf-8"))}


def rows() -> list[list[str]]:
    lines = (ROOT / "docs/security.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return cells[2:]  # behind the heading and its rule


def test_every_row_names_tests_that_exist():
    known = known_tests()
    assert len(rows()) > 20
    problems = []
    for row in rows():
        assert len(row) == 3, row
        named = re.findall(r"`([^`]+)`", row[2])
        if not named:
            problems.append(f"{row[0]}: no test is named")
        problems += [f"{row[0]}: there is no {name}" for name in named if name not in known]
    assert not problems, "\n".join(problems)
