"""Trains the SentencePiece tokenizer: BPE, byte fallback, one token per digit, newlines kept.

    python training/tokenizer.py --input sample.txt --output models/NAME/tokenizer.model

The input is plain text with one paragraph per line. Line breaks are user-defined symbols, so that text
survives encode/decode unchanged; `check` proves it on awkward strings.
"""

import argparse
import pathlib
import tempfile

import sentencepiece as spm

AWKWARD_TEXTS = [
    "Once upon a time",
    "\n\nQuestion: What is it?\nAnswer: 48213.\n\n",
    "a\nb\n\nc\n\n\nd",
    "  two leading spaces and  two inside ",
    "tab\tand emoji \U0001f98a and caf\u00e9 \u2014 \u201cquoted\u201d \u6f22",
    "",
    "\n",
    " ",
]


def train(sample: pathlib.Path, model: pathlib.Path, vocab_size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prefix = pathlib.Path(folder) / "tokenizer"
        spm.SentencePieceTrainer.train(
            input=str(sample),
            model_prefix=str(prefix),
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            split_digits=True,
            character_coverage=0.9999,
            required_chars="".join(map(chr, range(33, 127))),  # digits are rare in stories
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            user_defined_symbols=["\n", "\n\n"],
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            max_sentence_length=20000,
            input_sentence_size=0,
            num_threads=2,
        )
        model.parent.mkdir(parents=True, exist_ok=True)
        model.write_bytes(prefix.with_suffix(".model").read_bytes())


def check(model: pathlib.Path) -> None:
    """Every awkward text must come back from decode(encode(text)) unchanged."""
    tokenizer = spm.SentencePieceProcessor(model_file=str(model))
    for text in AWKWARD_TEXTS:
        back = tokenizer.decode(tokenizer.encode(text))
        if back != text:
            raise SystemExit(f"round trip changed {text!r} into {back!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=8192)
    args = parser.parse_args()
    train(args.input, args.output, args.vocab_size)
    check(args.output)


if __name__ == "__main__":
    main()
