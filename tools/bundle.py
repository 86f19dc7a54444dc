"""Collects what runs on a GPU machine without the build's libraries: bundle.py BUILD_DIR.

BUILD_DIR/bundle/bin gets the programs, benchmarks and tests, stripped; BUILD_DIR/bundle/lib every shared library they
load that is not part of glibc, the compiler's runtime, CUDA or its driver. The programs find lib/ beside bin/ (the
build sets their rpath). What stays needed: the GPU driver, libcublasLt of CUDA 13, glibc of at least the build's.
"""

import pathlib
import re
import shutil
import subprocess
import sys

PROGRAMS = ["nsa-server", "nsa-cli", "engine_bench", "gpu_engine_bench", "kernels_bench", "serving_bench",
            "tests/base_test", "tests/kernels_test", "tests/model_test", "tests/engine_test"]
SYSTEM = re.compile(r"^(ld-linux.*|linux-vdso|lib(c|m|dl|rt|pthread|resolv|stdc\+\+|gcc_s)|lib(cuda|cudart|cublas\w*|nv.*))\.so")


def strip(path: pathlib.Path):
    subprocess.run(["strip", "--strip-unneeded", path], check=True)


def libraries_of(program: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name -> file of the shared libraries that the program loads, directly or not."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    missing = re.findall(r"(\S+) => not found", listing)
    if missing:
        sys.exit(f"{program.name}: {', '.join(missing)} cannot be found")
    found = re.findall(r"^\s*(\S+) => (\S+) \(", listing, re.MULTILINE)
    return {name: pathlib.Path(file) for name, file in found if not SYSTEM.match(name)}


def main():
    build = pathlib.Path(sys.argv[1])
    bundle = build / "bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    (bundle / "bin" / "tests").mkdir(parents=True)
    (bundle / "lib").mkdir()
    libraries: dict[str, pathlib.Path] = {}
    for name in PROGRAMS:
        program = build / "bin" / name
        if not program.exists():
            sys.exit(f"{program} is missing: build it first")
        libraries.update(libraries_of(program))
        shutil.copy2(program, bundle / "bin" / name)
        strip(bundle / "bin" / name)
    for name, file in sorted(libraries.items()):
        shutil.copy2(file.resolve(), bundle / "lib" / name)
        strip(bundle / "lib" / name)
    num_bytes = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
    print(f"{bundle}: {len(PROGRAMS)} programs, {len(libraries)} libraries, {num_bytes / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
