"""Who may include whom (docs/architecture.md), read from the include lines of every source file."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = re.compile(r'^\s*#include\s+["<]([^">]+)[">]', re.MULTILINE)

# A file may include project headers whose path starts with one of the prefixes of the first row that matches it.
# Rows go from the special to the general. Tests, bench and tools may include anything.
ALLOWED = [
    ("base/", ["base/"]),
    ("kernels/cpu/", ["base/", "kernels/"]),
    ("kernels/no_cuda/", ["base/", "kernels/"]),
    ("kernels/", ["base/", "kernels/"]),
    ("engine/text/", ["base/", "engine/text/"]),
    ("engine/constraint/", ["base/", "engine/constraint/", "engine/text/tokenizer.h"]),
    ("engine/loader/", ["base/", "kernels/", "engine/loader/", "engine/request.h", "engine/batch.h"]),
    ("engine/cache/page_pool", ["engine/cache/page_pool.h", "base/"]),
    ("engine/cache/prefix_index", ["engine/cache/prefix_index.h", "engine/cache/page_pool.h", "base/"]),
    ("engine/cache/", ["base/", "kernels/", "engine/cache/", "engine/runtime/"]),
    ("engine/runtime/", ["base/", "kernels/", "engine/runtime/", "engine/request.h", "engine/batch.h"]),
    ("engine/attention/", ["base/", "kernels/", "engine/attention/", "engine/cache/", "engine/runtime/",
                           "engine/request.h", "engine/config.h"]),
    ("engine/model/", ["base/", "kernels/", "engine/model/", "engine/attention/", "engine/cache/", "engine/loader/",
                       "engine/runtime/", "engine/request.h", "engine/config.h"]),
    ("engine/scheduler", ["base/", "engine/scheduler.h", "engine/sequence.h", "engine/executor.h",
                          "engine/request.h", "engine/cache/page_pool.h", "engine/cache/prefix_index.h"]),
    ("engine/", ["base/", "kernels/", "engine/"]),
    ("server/http/", ["base/", "kernels/sampling.h", "engine/", "server/http/", "server/metrics/",
                      "server/api_keys.h", "server/call_checks.h", "server/error_detail.h",
                      "server/generation_service.h", "server/lanes.h", "server/request_id.h",
                      "server/request_log.h", "server/tls_files.h", "server/version.h"]),
    ("server/grpc/", ["base/", "engine/", "nsa/", "server/grpc/", "server/api_keys.h", "server/error_detail.h",
                      "server/generation_service.h", "server/lanes.h", "server/request_id.h", "server/request_log.h",
                      "server/tls_files.h", "server/version.h"]),
    ("server/", ["base/", "kernels/", "engine/", "nsa/", "server/"]),
    ("clients/", ["nsa/", "clients/"]),
]
PROJECT_FOLDERS = ("base/", "kernels/", "engine/", "server/", "clients/", "nsa/", "tests/", "bench/")

# Outside headers that only some files may see.
RESTRICTED = [
    (re.compile(r"^(boost/beast|boost/asio)"), re.compile(r"^server/http/http_|^tests/|^bench/")),
    (re.compile(r"^nlohmann/"), re.compile(
        r"^engine/config|^engine/constraint/(json|schema)_|^engine/loader/|^engine/model/|^engine/text/|^server/http/|^server/main"
        r"|^server/config"
        r"|^engine/generation_config|^server/model_folder|^tests/|^bench/")),
    (re.compile(r"^(grpcpp|google/protobuf)/"), re.compile(r"^server/grpc/|^clients/|^tests/|^bench/")),
    (re.compile(r"^prometheus/"), re.compile(r"^server/metrics/|^tests/")),
    (re.compile(r"^sentencepiece"), re.compile(r"^engine/text/sentencepiece_model\.cc$|^tests/")),
    (re.compile(r"^pcre2"), re.compile(r"^engine/text/hf/pattern\.cc$")),
    (re.compile(r"^utf8proc"), re.compile(r"^engine/text/hf/normalizer\.cc$")),
    (re.compile(r"^(cuda|cublas)"), re.compile(r"^kernels/cuda/|^engine/runtime/[a-z_]+_cuda\.cc$|^tests/|^bench/")),
    # Backends are seen through kernels/*.h alone.
    (re.compile(r"^kernels/cuda/"), re.compile(r"^kernels/cuda/|^engine/runtime/[a-z_]+_cuda\.cc$|^tests/|^bench/")),
    (re.compile(r"^kernels/cpu/"), re.compile(r"^kernels/cpu/|^tests/|^bench/")),
    (re.compile(r"^hwy/"), re.compile(r"^kernels/cpu/|^tests/kernels/|^bench/")),
]


def sources():
    for folder in ("base", "kernels", "engine", "server", "clients", "tests", "bench"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".h", ".cc", ".cu", ".cuh"):
                yield path.relative_to(ROOT).as_posix()


def includes(path: str):
    return INCLUDE.findall((ROOT / path).read_text(encoding="utf-8"))


def test_project_headers_are_included_downwards_only():
    violations = []
    for path in sources():
        allowed = next((prefixes for prefix, prefixes in ALLOWED if path.startswith(prefix)), None)
        if allowed is None:
            continue
        for header in includes(path):
            if header.startswith(PROJECT_FOLDERS) and not header.startswith(tuple(allowed)):
                violations.append(f"{path} includes {header}")
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize("header,allowed", RESTRICTED, ids=lambda rule: rule.pattern)
def test_outside_libraries_stay_where_they_belong(header, allowed):
    violations = [f"{path} includes {name}" for path in sources() for name in includes(path)
                  if header.search(name) and not allowed.search(path)]
    assert not violations, "\n".join(violations)


def test_transports_do_not_see_each_other():
    for path in sources():
        for header in includes(path):
            assert not (path.startswith("server/http/") and header.startswith("server/grpc/")), path
            assert not (path.startswith("server/grpc/") and header.startswith("server/http/")), path


def test_the_environment_is_read_in_one_place():
    readers = [path for path in sources() if not path.startswith(("tests/", "bench/", "clients/"))
               and re.search(r"\bgetenv\s*\(", (ROOT / path).read_text(encoding="utf-8"))]
    assert set(readers) <= {"server/config.cc"}
