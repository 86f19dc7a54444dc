"""tokenizer.json, token by token against Hugging Face's library: the program tokenize_file encodes the same texts."""

import json
import os
import pathlib
import struct
import subprocess
import sys
import unicodedata

import pytest
from tokenizers import Tokenizer, normalizers

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import mixed_text  # noqa: E402

BUILD = pathlib.Path(os.environ.get("NSA_BUILD_DIR", ROOT / "build" / "cpu-release"))
GOLDEN = ROOT / "tests" / "golden" / "tokenizers"
FAMILIES = ("llama3", "gpt2", "qwen2", "deepseek_v3", "nemo")
REFUSED = 0xFFFFFFFF

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern: dict, behavior: str, invert: bool = False) -> dict:
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def regex(pattern: str, behavior: str, invert: bool = False) -> dict:
    return split({"Regex": pattern}, behavior, invert)


# Ways to cut a text that the five families do not use.
STEPS = {
    "removed": [regex(r"\s+", "Removed")],
    "contiguous": [regex(r"[\p{P}\p{S}]", "Contiguous")],
    "previous": [regex(r"\s", "MergedWithPrevious")],
    "next": [regex(r"\s", "MergedWithNext")],
    "inverted": [regex(r"\p{L}+", "Isolated", invert=True)],
    "inverted_removed": [regex(r"[\p{L}\d\s]+", "Removed", invert=True)],
    "inverted_previous": [regex(r"\p{L}", "MergedWithPrevious", invert=True)],
    "literal": [split({"String": " "}, "MergedWithNext"), split({"String": "("}, "Isolated")],
    "digits": [{"type": "Digits", "individual_digits": True}],
    "digit_runs": [{"type": "Digits", "individual_digits": False}],
    "empty_matches": [regex(r"(?=\p{Lu})", "Isolated"), regex(r"\d*", "Isolated")],
    "scripts": [regex(r"[\p{Han}\p{Hiragana}]+|\p{^Latin}", "Isolated")],
    "lines": [regex(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+", "Isolated"), regex(r"\s+$", "Isolated"), regex(r"^\S", "Isolated")],
    "escapes": [regex(r"[\x41-\x5A\u00e9\t]|\D\d{,2}|[^\S\n]+", "Isolated")],
}


def encode(folder: pathlib.Path, texts: list[str], tmp_path: pathlib.Path, special: bool = False) -> list[list[int]]:
    """What our tokenizer makes of the texts."""
    encoded = [text.encode() for text in texts]
    source, target = tmp_path / "texts", tmp_path / "tokens"
    source.write_bytes(b"".join(struct.pack("<I", len(text)) + text for text in encoded))
    command = [BUILD / "bin" / "tokenize_file", folder, source, target] + (["special"] if special else [])
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    words = memoryview(target.read_bytes()).cast("i")
    tokens, position = [], 0
    while position < len(words):
        count = words[position]
        assert count & 0xFFFFFFFF != REFUSED, f"refused: {texts[len(tokens)][:80]!r}"
        tokens.append(words[position + 1:position + 1 + count].tolist())
        position += 1 + count
    return tokens


def reference(folder: pathlib.Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # in a text they are text
    return tokenizer


def compare(folder: pathlib.Path, texts: list[str], tmp_path: pathlib.Path, special: bool = False) -> int:
    """Number of tokens, which are all the same; the first difference fails."""
    ours = encode(folder, texts, tmp_path, special)
    theirs = [item.ids for item in reference(folder).encode_batch(texts, add_special_tokens=special)]
    assert len(ours) == len(theirs)
    for text, mine, wanted in zip(texts, ours, theirs):
        if mine != wanted:
            first = next((i for i, (a, b) in enumerate(zip(mine, wanted)) if a != b), min(len(mine), len(wanted)))
            pytest.fail(f"token {first} of {text[:200]!r}: {mine[first:first + 5]}, not {wanted[first:first + 5]}")
    return sum(map(len, theirs))


def is_known_to_both(text: str) -> bool:
    """False where Hugging Face's older Unicode composes a text otherwise than Python's."""
    return normalizers.NFC().normalize_str(text) == unicodedata.normalize("NFC", text)


def mixed_texts(count: int) -> list[str]:
    return mixed_text.repository_texts() + mixed_text.random_texts(count, seed=11)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_large_mixed_text_has_the_same_tokens(family, tmp_path, record_property):
    texts = mixed_texts(4000)
    if family == "qwen2":
        composed = [text for text in texts if is_known_to_both(text)]
        assert len(texts) - len(composed) < 10
        texts = composed
    num_bytes = sum(len(text.encode()) for text in texts)
    num_tokens = compare(GOLDEN / family, texts, tmp_path)
    record_property("tokens", num_tokens)
    print(f"{family}: {num_bytes} bytes, {num_tokens} tokens")
    assert num_bytes > 1_000_000 and num_tokens > 500_000


@pytest.mark.parametrize("family", FAMILIES)
def test_every_character_is_cut_the_same(family, tmp_path):
    texts = [f"a{c}b {c}{c} 1{c}.{c}\n" for c in mixed_text.code_points()]
    joined = ["".join(texts[i:i + 500]) for i in range(0, len(texts), 500)]
    assert compare(GOLDEN / family, joined, tmp_path) > 1_000_000


@pytest.mark.parametrize("steps", STEPS)
def test_other_ways_to_cut(steps, tmp_path):
    file = json.loads((GOLDEN / "gpt2" / "tokenizer.json").read_text(encoding="utf-8"))
    file["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": STEPS[steps] + [BYTE_LEVEL]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(file), encoding="utf-8")
    assert compare(tmp_path, mixed_text.random_texts(1000, seed=12), tmp_path) > 10_000


def test_a_prefix_space(tmp_path):
    file = json.loads((GOLDEN / "gpt2" / "tokenizer.json").read_text(encoding="utf-8"))
    file["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(file), encoding="utf-8")
    assert compare(tmp_path, mixed_text.random_texts(500, seed=13) + ["", " x", "x"], tmp_path) > 10_000


@pytest.mark.parametrize("family", ("llama3", "nemo", "gpt2", "qwen2"))
def test_the_post_processor_adds_the_same_tokens(family, tmp_path):
    assert compare(GOLDEN / family, ["", "x", "Hello, world"], tmp_path, special=True) > 3


@pytest.mark.parametrize("family", FAMILIES)
def test_megabytes_without_a_word(family, tmp_path):
    texts = [unit * (300_000 // len(unit.encode())) for unit in ("a", " ", "\n", "7", "中", "-", "\r\n", "aB", "é")]
    assert compare(GOLDEN / family, texts, tmp_path) > 100_000
