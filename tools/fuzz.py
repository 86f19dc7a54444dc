"""Runs each fuzz target for a while: fuzz.py BUILD_DIR SECONDS.

Starts from the corpora in tests/fuzz/corpus and keeps what it finds in BUILD_DIR/corpus for the next time. An input that
fails is left in BUILD_DIR as TARGET-crash-...; it belongs into tests/fuzz/corpus/TARGET with the fix. Exit status 1 if
any was found.
"""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX_SECONDS_PER_INPUT = 10
MAX_MEMORY_MB = 2048


def run_target(program: pathlib.Path, build: pathlib.Path, seconds: int) -> bool:
    target = program.name.removeprefix("fuzz_")
    found = build / "corpus" / target
    found.mkdir(parents=True, exist_ok=True)
    log = build / f"{target}.log"
    command = [str(program), str(found), str(ROOT / "tests" / "fuzz" / "corpus" / target),
               f"-max_total_time={seconds}", f"-timeout={MAX_SECONDS_PER_INPUT}", f"-rss_limit_mb={MAX_MEMORY_MB}",
               f"-artifact_prefix={build}/{target}-", "-print_final_stats=1"]
    environment = {**os.environ, "LSAN_OPTIONS": f"suppressions={ROOT}/tests/support/lsan.supp:print_suppressions=0"}
    with log.open("wb") as output:
        exit_code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode
    executions = re.search(r"number_of_executed_units:\s*(\d+)", log.read_text(errors="replace"))
    count = int(executions[1]) if executions else 0
    print(f"{target:<20}{count:>12} executions in {seconds} s  {'ok' if exit_code == 0 else f'FAILED, see {log}'}",
          flush=True)
    return exit_code == 0 and count > 0


def main() -> int:
    build, seconds = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2])
    programs = sorted((build / "bin" / "fuzz").iterdir())
    results = [run_target(program, build, seconds) for program in programs]
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
