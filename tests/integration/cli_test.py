"""nsa-cli and the Python examples against the running server."""

import pathlib
import re
import subprocess
import sys

from server_process import ROOT, build_dir


def cli(server, *arguments, **options):
    return subprocess.run([build_dir() / "bin" / "nsa-cli", *arguments, f"--address={server.grpc}"],
                          capture_output=True, text=True, timeout=300, **options)


def test_generate_streams_text_and_ends_with_figures(server):
    result = cli(server, "generate", "Once upon a time", "--max-tokens=12", "--temperature=0")
    assert result.returncode == 0, result.stderr
    with server.client() as http:
        text = http.post("/v1/completions", json={"prompt": "Once upon a time", "max_tokens": 12,
                                                  "temperature": 0}).json()["choices"][0]["text"]
    assert text.strip() in result.stdout
    assert "tokens/s" in result.stderr and "KV" in result.stderr


def test_a_long_file_shows_progress(server, tmp_path):
    prompt = tmp_path / "long.txt"
    prompt.write_text((ROOT / "tools" / "demo_chapter.txt").read_text()[:12000])
    result = cli(server, "generate", f"--file={prompt}", "--max-tokens=2", "--ignore-eos")
    assert result.returncode == 0, result.stderr
    progress = re.findall(r"^prefill (\d+) / (\d+) tokens$", result.stderr, re.MULTILINE)
    assert progress and all(0 < int(done) < int(total) for done, total in progress), result.stderr
    assert f"prompt {progress[0][1]} tokens" in result.stderr
    assert re.fullmatch(r"KV cache read: [\d.]+ [KMG]iB; full attention would have read [\d.]+ [KMG]iB"
                        r" \([\d.]+ times as much\)", result.stderr.splitlines()[-1])


def test_chat_answers_each_line(server):
    result = cli(server, "chat", "--max-tokens=6", input="Hello there\nAnd then?\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_errors_are_clear(server, tmp_path):
    assert cli(server, "generate", f"--file={tmp_path / 'missing.txt'}").returncode != 0
    result = cli(server, "generate", f"--file={tmp_path}")
    assert result.returncode == 1 and f"{tmp_path} is a directory" in result.stderr
    result = cli(server, "generate", "x", "--temperature=5")
    assert result.returncode != 0 and "INVALID_ARGUMENT: temperature is 5" in result.stderr
    result = subprocess.run([build_dir() / "bin" / "nsa-cli", "generate", "x", "--address=127.0.0.1:1"],
                            capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "nsa-cli: 127.0.0.1:1: UNAVAILABLE: no server can be reached there\n"


def test_the_openai_example_runs(server):
    example = pathlib.Path(ROOT / "clients" / "python" / "openai_example.py")
    result = subprocess.run([sys.executable, example, f"--base-url={server.http}/v1"], capture_output=True, text=True,
                            timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
