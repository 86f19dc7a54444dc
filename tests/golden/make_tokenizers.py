"""Trains the small tokenizers of golden/tokenizers and writes what Hugging Face's library makes of some texts:
make_tokenizers.py. Each has the pattern, normalizer, processors and added tokens of a public family."""

import json
import pathlib
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import mixed_text  # noqa: E402

VOCABULARY = 900
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = (CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
DEEPSEEK = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
NEMO = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# Whole words without merges that lead to them; ignore_merges finds them.
UNREACHABLE = ["Ġtokenizer", "Ġselection", "Ġcompressed", "zqxj", "Ġ\u00e0\u00a6\u00ac"]


def split(pattern: str):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)


def byte_level(use_regex: bool = False):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def template(token: str, token_id: int):
    return processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1",
                                         special_tokens=[(token, token_id)])


def special(*contents: str):
    return [AddedToken(content, special=True, normalized=False) for content in contents]


def plain(*contents: str, normalized: bool):
    return [AddedToken(content, special=False, normalized=normalized) for content in contents]


def trained(pre_tokenizer, normalizer=None, leading=()) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(leading), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    texts = sorted((mixed_text.ROOT / "docs").glob("*.md"))
    lines = [path.read_text(encoding="utf-8") for path in texts] + mixed_text.WORDS * 40
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def llama3() -> tuple[dict, dict]:
    tokenizer = trained(pre_tokenizers.Sequence([split(LLAMA3), byte_level()]))
    tokenizer.add_special_tokens(special("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                                         "<|end_header_id|>", "<|eot_id|>"))
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True),
                                                    template("<|begin_of_text|>", bos)])
    file = json.loads(tokenizer.to_str())
    file["model"]["ignore_merges"] = True
    for i, word in enumerate(UNREACHABLE):
        file["model"]["vocab"][word] = bos + 5 + i
    return file, {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}


def gpt2() -> tuple[dict, dict]:
    tokenizer = trained(byte_level(use_regex=True), leading=["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    file = json.loads(tokenizer.to_str())
    file["model"]["merges"] = [" ".join(pair) for pair in file["model"]["merges"]]  # as older files have them
    return file, {"add_bos_token": False, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}


def qwen2() -> tuple[dict, dict]:
    tokenizer = trained(pre_tokenizers.Sequence([split(QWEN2), byte_level()]), normalizer=normalizers.NFC())
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.add_tokens(plain("<tool_call>", "</tool_call>", "<tool", normalized=False))
    tokenizer.add_tokens(plain("qu\u00e9", "que\u0301s", normalized=True))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return json.loads(tokenizer.to_str()), {"add_bos_token": False, "bos_token": None, "eos_token": "<|im_end|>"}


def deepseek_v3() -> tuple[dict, dict]:
    steps = [split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(DEEPSEEK), byte_level()]
    tokenizer = trained(pre_tokenizers.Sequence(steps), normalizer=normalizers.Sequence([]),
                        leading=["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"])
    tokenizer.add_tokens(plain("<think>", "</think>", normalized=False))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return json.loads(tokenizer.to_str()), {
        "add_bos_token": True, "add_eos_token": False,
        "bos_token": {"__type": "AddedToken", "content": "<｜begin▁of▁sentence｜>", "normalized": True},
        "eos_token": {"__type": "AddedToken", "content": "<｜end▁of▁sentence｜>", "normalized": True}}


def nemo() -> tuple[dict, dict]:
    tokenizer = trained(pre_tokenizers.Sequence([split(NEMO), byte_level()]),
                        leading=["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    tokenizer.post_processor = template("<s>", 1)
    file = json.loads(tokenizer.to_str())
    file["model"]["ignore_merges"] = True
    return file, {"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>"}


FAMILIES = {"llama3": llama3, "gpt2": gpt2, "qwen2": qwen2, "deepseek_v3": deepseek_v3, "nemo": nemo}


def golden_texts() -> list[str]:
    texts = ["", " ", "a", "\n", "  x", "Hello, world!", "don't I'LL", "12345678", "a\r\n\r\n b   \n  c ",
             "<tool_call>x</tool_call>", "<tool", "que\u0301 que\u0301s", "<think>\n\n</think>", "zqxj tokenizer",
             "<|begin_of_text|><|endoftext|><s>[INST]"]
    return texts + mixed_text.WORDS + [text[:120] for text in mixed_text.random_texts(40, seed=4)]


def main() -> None:
    for name, make in FAMILIES.items():
        file, config = make()
        folder = HERE / "tokenizers" / name
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(file, ensure_ascii=False, separators=(",", ":"))
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n")
        tokenizer = Tokenizer.from_str(text)
        tokenizer.encode_special_tokens = True  # in a text they are text
        cases = [{"text": t, "tokens": tokenizer.encode(t, add_special_tokens=False).ids} for t in golden_texts()]
        (folder / "golden.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
