"""docs/security.md and the promises of docs/api.md name a test in every row; each of them exists."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GTEST_CASE = re.compile(r"^(?:TEST|TEST_F|TEST_P|TYPED_TEST)\(\s*(\w+),\s*(\w+)\s*\)", re.MULTILINE)
PYTEST_CASE = re.compile(r"^def (test_\w+)\(", re.MULTILINE)

# Page, heading before the table, rows at least.
TABLES = [("docs/security.md", "# Security", 20), ("docs/api.md", "## What is promised, and the tests that hold it", 40)]


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def known_tests() -> set[str]:
    listing = subprocess.run(["git", "ls-files", "tests"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = listing.stdout.split()
    known = {f"{suite}.{name}" for path in paths if path.endswith(".cc") for suite, name in GTEST_CASE.findall(text_of(path))}
    return known | {f"{pathlib.Path(path).name}::{name}"
                    for path in paths if path.endswith("_test.py") for name in PYTEST_CASE.findall(text_of(path))}


def rows_of(page: str, heading: str) -> list[list[str]]:
    lines = text_of(page).split(heading + "\n", 1)[1].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next((i for i in range(first, len(lines)) if not lines[i].startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first + 2:end]]  # behind the rule


@pytest.mark.parametrize("page, heading, least", TABLES)
def test_every_row_names_tests_that_exist(page, heading, least):
    known, rows, problems = known_tests(), rows_of(page, heading), []
    assert len(rows) >= least
    for row in rows:
        named = re.findall(r"`([^`]+)`", row[-1])
        if not named:
            problems.append(f"{row[0]}: no test is named")
        problems += [f"{row[0]}: there is no {name}" for name in named if name not in known]
    assert not problems, "\n".join(problems)
