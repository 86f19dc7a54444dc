"""The formulas and the worked example of docs/deploy.md, against each other and against a live server."""

import json
import math
import re
import subprocess

import chart

DOC = (chart.ROOT / "docs" / "deploy.md").read_text()
PERFORMANCE = (chart.ROOT / "docs" / "performance.md").read_text()
MIB, GIB = 2**20, 2**30


class Sizes:
    """docs/deploy.md, Sizing; K and V per branch."""

    def __init__(self, layers, kv_heads, d, number_bytes, block, stride, lookback, max_num_seqs, max_batched_tokens):
        self.page = layers * (block + block // stride) * kv_heads * 2 * d * number_bytes
        self.recent_page = layers * 2 * block * kv_heads * 2 * d * number_bytes
        self.per_sequence = (lookback + block - 2) // block + 2
        self.recent_pages = max_num_seqs * self.per_sequence + max_batched_tokens // block

    def pages(self, cache_bytes: int) -> int:
        """With prefix caching."""
        kept = (cache_bytes - self.recent_pages * self.recent_page - self.page) // 8 // self.recent_page
        return (cache_bytes - (self.recent_pages + kept) * self.recent_page) // self.page


EXAMPLE = Sizes(layers=32, kv_heads=4, d=128, number_bytes=2, block=64, stride=16, lookback=511, max_num_seqs=64,
                max_batched_tokens=8192)


def test_the_formulas_give_what_a_server_has(tmp_path):
    config = json.loads((chart.ROOT / "models" / "nsa-story-27m" / "config.json").read_text())
    nsa = config["nsa_config"]
    assert not nsa["shared_kv"] and nsa["v_head_dim"] == config["head_dim"] and config["torch_dtype"] == "bfloat16"
    sizes = Sizes(config["num_hidden_layers"], config["num_key_value_heads"], config["head_dim"], number_bytes=2,
                  block=nsa["block_tokens"], stride=nsa["span_stride"],
                  lookback=max(nsa["span_tokens"], nsa["window_tokens"]) - 1, max_num_seqs=16, max_batched_tokens=512)
    command = [str(chart.build_dir() / "bin" / "nsa-server"), f"--model={chart.ROOT / 'models' / 'nsa-story-27m'}",
               "--device=cpu", "--http-port=0", "--grpc-port=0", "--kv-cache-bytes=64MiB", "--max-num-seqs=16"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        found = next((match for line in iter(process.stdout.readline, "")
                      if (match := re.search(r"kv cache .* (\d+) pages of 64 tokens", line))), None)
        process.kill()
    assert found and int(found.group(1)) == sizes.pages(64 * MIB)


def test_the_example_is_computed():
    assert EXAMPLE.per_sequence == 10 and "`per sequence` is 10" in DOC
    assert EXAMPLE.page == 4.25 * MIB
    per_gib = GIB // EXAMPLE.page
    assert f"= 4.25 MiB: {per_gib} pages, {per_gib * 64:,} tokens, per GiB" in DOC
    assert EXAMPLE.recent_page == 8 * MIB and "= 8 MiB" in DOC
    assert f"= {EXAMPLE.recent_pages}: {EXAMPLE.recent_pages * EXAMPLE.recent_page // GIB} GiB" in DOC
    assert 110 < 0.9 * 139.8 - 14.3 < 112
    for gib in (110, 50):
        pages = EXAMPLE.pages(gib * GIB)
        assert re.search(rf"{pages:,}( with prefix caching)?: {pages * 64:,} tokens, {pages // 1024} contexts of 64k",
                         DOC)


def test_the_number_of_replicas_is_computed():
    rates = re.search(r"\(performance.md: ([\d,]+) prompt tokens/s and ([\d,]+) answer tokens/s at 32k\)", DOC).groups()
    assert re.search(rf"^\| 32,768 \| {rates[0]} \|", PERFORMANCE, re.MULTILINE)
    assert re.search(rf"^\| 32,768 \| \d+ \| .*\| {rates[1]} \|", PERFORMANCE, re.MULTILINE)
    prompt_rate, answer_rate = (int(rate.replace(",", "")) for rate in rates)

    def replicas(hit: float) -> tuple[int, float, float, float]:
        in_flight, prompt_tokens, answer_tokens = 5 * 12, 16_000, 500
        memory = in_flight * math.ceil((prompt_tokens + answer_tokens) / 64) / EXAMPLE.pages(110 * GIB)
        places = in_flight / 64
        time = 5 * prompt_tokens * (1 - hit) / prompt_rate + 5 * answer_tokens / answer_rate
        return math.ceil(max(memory, places, time) / 0.7) + 1, memory, places, time

    number, memory, places, time = replicas(0)
    assert f"memory 60 x 258 / 21,927 = {memory:.2f}, places 60 / 64 = {places:.2f}" in DOC and f"= {time:.2f}\n" in DOC
    assert f"ceil({time:.2f} / 0.7) + 1 = {number}" in DOC
    assert f"(h = 0.5), {replicas(0.5)[0]} replicas do" in DOC
