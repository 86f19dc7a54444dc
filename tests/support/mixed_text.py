"""Texts of every kind a tokenizer may meet: this repository's own, and Unicode made from a seed."""

import pathlib
import random
import sys
import unicodedata

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ("docs", "engine", "kernels", "server", "tests", "bench", "tools", "training")
SUFFIXES = (".md", ".cc", ".h", ".py", ".json", ".cu", ".proto", ".txt", ".sh")

SPACES = [chr(c) for c in (9, 10, 11, 12, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029,
                           0x202F, 0x205F, 0x3000)] + ["\u180e", "\u200b", "\ufeff", "\r\n", "  ", "\n\n"]
CONTRACTIONS = ["'s", "'T", "'re", "'VE", "'m", "'Ll", "'d", "'\u017f", "\u2019s", "don't", "I'LL've", "'", "''s"]
# Alphabets that differ in what the patterns ask: case, marks, right to left, no spaces, digits of their own.
WORDS = ("The quick brown fox jumps over the lazy dog naïve café Straße ÅNGSTRÖM Ελληνικά Русский текст Հայերեն "
         "עברית العربية فارسی हिन्दी বাংলা தமிழ் తెలుగు ไทย ລາວ မြန်မာ ქართული አማርኛ ភាសាខ្មែរ 中文字符 漢字かな カタカナ "
         "한국어 ᏣᎳᎩ Монгол Tiếng Việt ǅ ﬁ ﬀ ß ſ K İ ı e\u0301 o\u0308\u0323 \u0344 각 각 "
         "getHTTPResponseCode snake_case_name 0x1F 3.14159 1234567 ١٢٣٤ १२३ ⅷ ² ½ 〇 1,000,000 $5.00 £ € ₿").split()
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "⌨️", "🦊"]
CODE = ["if (x >= 10) { return a[i++]; }\n", "\tfor i in range(10):\n\t\tprint(i)\n", "<|im_start|>", "<tool_call>",
        "</tool_call>", "<|endoftext|>", "<|begin_of_text|>", "</s>", "// ----\n", "a=b&c=%20", "!!!", "...", "/**/"]


def repository_texts() -> list[str]:
    """Every text file of the repository that is no model, cut into pieces of at most 20,000 characters."""
    texts = []
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and "golden" not in path.parts:
                text = path.read_text(encoding="utf-8")
                texts += [text[i:i + 20_000] for i in range(0, len(text), 20_000)]
    return texts


def code_points() -> list[str]:
    """Every character that Python's Unicode knows, but surrogates and private ones."""
    return [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in ("Cs", "Co", "Cn")]


def random_texts(count: int, seed: int) -> list[str]:
    """Texts of 1 to 60 random parts."""
    rng = random.Random(seed)
    alphabet = code_points()
    parts = [
        lambda: rng.choice(WORDS),
        lambda: rng.choice(WORDS) + " " + rng.choice(WORDS),
        lambda: " " + rng.choice(WORDS),
        lambda: "".join(rng.choices(SPACES, k=rng.randint(1, 5))),
        lambda: " " * rng.randint(1, 12),
        lambda: rng.choice(WORDS) + rng.choice(CONTRACTIONS),
        lambda: rng.choice(EMOJI),
        lambda: rng.choice(CODE),
        lambda: str(rng.randint(0, 10 ** rng.randint(1, 12))),
        lambda: "".join(chr(rng.randint(0, 0x24F)) for _ in range(rng.randint(1, 6))),
        lambda: "".join(rng.choices(alphabet, k=rng.randint(1, 4))),
        lambda: rng.choice("aeouAx") + "".join(chr(rng.randint(0x300, 0x36F)) for _ in range(rng.randint(1, 6))),
        lambda: rng.choice(".,;:!?-_()[]{}<>/\\|@#$%^&*~`\"'") * rng.randint(1, 5),
    ]
    return ["".join(rng.choice(parts)() for _ in range(rng.randint(1, 60))) for _ in range(count)]
