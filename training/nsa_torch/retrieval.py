"""Facts planted in text and questions about them, at the level of tokens.

A piece is only ever inserted where the tokenizer would split anyway (after a blank line, or before a word
that follows a full stop), so the row's tokens are those of the concatenated text.
"""

import dataclasses

import numpy as np

BOS, EOS = 1, 2
NEWLINE, PARAGRAPH = 3, 4  # the user-defined symbols "\n" and "\n\n"
IGNORED, NORMAL, ANSWER = 0, 1, 2  # kinds of target tokens
NO_CUT, PARAGRAPH_CUT, SENTENCE_CUT = 0, 1, 2  # where a piece may go, per token of the corpus

ADJECTIVES = """silver golden wooden broken ancient little purple crimson hidden frozen rusty painted quiet
crooked velvet marble hollow yellow copper gentle foreign humble narrow polished scarlet secret shining
silent simple smoky spotted striped sunny tangled tiny wandering weary whispering white wild winter wooly
blue brave bright brown clever cold dark dusty fallen famous green grey happy heavy iron lonely lost
merry noble old pale plain proud red royal""".split()
NOUNS = """lantern garden castle bridge mountain river basket window kettle violin carriage sparrow rabbit
button candle chimney cottage feather forest fountain hammer harbour island ladder letter mirror needle
orchard parcel pebble pillow pocket ribbon saddle shepherd shadow soldier spider squirrel stable teapot
thimble thunder tower trumpet tunnel turnip village wagon walnut whistle willow wizard acorn anchor arrow
barrel bell blanket boat bottle box cabin clock cloak crown drum falcon flute gate goose hat horse key
kitten knife lamb mill""".split()
FACTS = (
    "The secret number of the{x} is {n}.",
    "Remember that the secret number of the{x} is {n}.",
    "The{x} has the secret number {n}.",
    "They all knew that the secret number of the{x} was {n}.",
)
QUESTIONS = (
    "Question: What is the secret number of the{x}?\nAnswer: {n}.",
    "Question: Which secret number does the{x} have?\nAnswer: {n}.",
    "Question: Tell me the secret number of the{x}.\nAnswer: {n}.",
    "Question: Do you remember the secret number of the{x}?\nAnswer: {n}.",
)


def is_held_out(adjective: int, noun: int) -> bool:
    """Combinations kept for the evaluation: a tenth of them."""
    return (adjective * 31 + noun * 17) % 10 == 0


@dataclasses.dataclass
class Piece:
    tokens: np.ndarray  # int16
    kinds: np.ndarray  # uint8: IGNORED, NORMAL, ANSWER

    @staticmethod
    def join(pieces) -> "Piece":
        return Piece(
            np.concatenate([piece.tokens for piece in pieces]),
            np.concatenate([piece.kinds for piece in pieces]),
        )


def plain(tokens) -> Piece:
    tokens = np.asarray(tokens, dtype=np.int16)
    return Piece(tokens, np.full(len(tokens), NORMAL, dtype=np.uint8))


class FactBook:
    """All pieces, tokenised once; render() needs no tokenizer."""

    def __init__(self, tokenizer):
        def encode(text: str) -> np.ndarray:
            """The tokens of `text` in the middle of a document."""
            return np.asarray(tokenizer.encode("\n\n" + text)[2:], dtype=np.int16)

        def split(template: str, lead: str):
            head, rest = (lead + template).split("{x}")
            middle, tail = rest.split("{n}")
            return encode(head), encode(middle), encode(tail)

        self.facts = [split(text, "") for text in FACTS]
        self.inline_facts = [split(text, " ") for text in FACTS]
        self.questions = [split(text, "") for text in QUESTIONS]
        self.adjectives = [encode(" " + word) for word in ADJECTIVES]
        self.nouns = [encode(" " + word) for word in NOUNS]
        self.digits = np.concatenate([encode(digit) for digit in "0123456789"])
        self.paragraph = plain([PARAGRAPH])
        words = max(map(len, self.adjectives)) + max(map(len, self.nouns)) + 6 + 1
        longest = lambda templates: max(sum(map(len, parts)) for parts in templates) + words
        self.fact_tokens = max(longest(self.facts), longest(self.inline_facts))  # upper bounds
        self.question_tokens = longest(self.questions)

    def render(self, parts, key, digits, digit_kind: int) -> Piece:
        head, middle, tail = parts
        number = self.digits[digits]
        words = [head, self.adjectives[key[0]], self.nouns[key[1]], middle]
        before, after = plain(np.concatenate(words)), plain(tail)
        answer = Piece(number, np.full(len(number), digit_kind, dtype=np.uint8))
        return Piece.join([before, answer, after])

    def fact(self, template: int, key, digits, cut: int) -> Piece:
        if cut == SENTENCE_CUT:
            return self.render(self.inline_facts[template], key, digits, IGNORED)
        piece = self.render(self.facts[template], key, digits, IGNORED)
        return Piece.join([piece, self.paragraph])

    def question(self, template: int, key, digits, at_end: bool) -> Piece:
        piece = self.render(self.questions[template], key, digits, ANSWER)
        around = [self.paragraph, piece] if at_end else [piece, self.paragraph]
        return Piece.join(around)

    def draw_keys(self, rng, count: int, held_out: bool) -> list:
        keys = []
        while len(keys) < count:
            key = (int(rng.integers(len(ADJECTIVES))), int(rng.integers(len(NOUNS))))
            if is_held_out(*key) == held_out and key not in keys:
                keys.append(key)
        return keys


def assemble(filler, insertions, length: int) -> Piece:
    """insertions: (anchor in filler, Piece) in order. Fills up with filler to exactly `length` tokens."""
    pieces, used = [], 0
    total = sum(len(piece.tokens) for _, piece in insertions)
    for anchor, piece in insertions:
        if anchor > used:
            pieces.append(plain(filler[used:anchor]))
            used = anchor
        pieces.append(piece)
    rest = length - total - used
    if rest > 0:
        pieces.append(plain(filler[used : used + rest]))
    row = Piece.join(pieces)
    return Piece(row.tokens[:length], row.kinds[:length])


def snap(cuts_at, anchor: int, limit: int):
    """The first allowed cut at or after anchor, or `limit` (the end of the filler)."""
    index = np.searchsorted(cuts_at, anchor)
    return int(cuts_at[index]) if index < len(cuts_at) and cuts_at[index] < limit else limit


def question_row(book: FactBook, rng, filler, cuts, length: int) -> Piece:
    """Several facts at random places; each asked once or twice later, the last question at the end."""
    most = min(16, max(3, length // 128), length // (2 * (book.fact_tokens + book.question_tokens)))
    num_facts = int(rng.integers(1, max(1, most) + 1))
    if rng.random() < 0.25:
        num_facts = 1
    keys = book.draw_keys(rng, num_facts, held_out=False)
    plan = []  # (fact place, question place) as fractions
    for key in keys:
        digits = rng.integers(0, 10, size=5 if rng.random() < 0.8 else int(rng.integers(3, 7)))
        start = rng.random() * 0.97
        asked = [1.0 if rng.random() < 0.4 else start + (1 - start) * rng.random()]
        if rng.random() < 0.25:
            asked.append(start + (1 - start) * rng.random())
        plan.append((key, digits, start, asked))
    reserved = [book.fact_tokens + book.question_tokens * len(asked) for _, _, _, asked in plan]
    limit = length - sum(reserved)
    paragraphs = np.flatnonzero(cuts == PARAGRAPH_CUT)
    any_cut = np.flatnonzero(cuts)
    insertions, order = [], 0
    for key, digits, start, asked in plan:
        place = snap(any_cut, int(start * limit), limit)
        cut = int(cuts[place]) if place < limit else SENTENCE_CUT
        piece = book.fact(int(rng.integers(len(FACTS))), key, digits, cut)
        insertions.append((place, order, piece))
        for fraction in asked:
            order += 1
            at = max(place, snap(paragraphs, int(fraction * limit), limit))
            at_end = at >= limit or cuts[at] != PARAGRAPH_CUT
            template = 0 if rng.random() < 0.5 else int(rng.integers(len(QUESTIONS)))
            piece = book.question(template, key, digits, at_end)
            insertions.append((limit if at_end else at, order + rng.random(), piece))
        order += 1
    insertions.sort(key=lambda item: item[:2])
    insertions = [(anchor, piece) for anchor, _, piece in insertions]
    return end_with_question(filler, insertions, limit, length)


def end_with_question(filler, insertions, limit: int, length: int) -> Piece:
    """Moves the end of the filler so that the pieces anchored there end the row exactly."""
    total = sum(len(piece.tokens) for _, piece in insertions)
    end = length - total
    moved = [(end if anchor >= limit else anchor, piece) for anchor, piece in insertions]
    return assemble(filler, moved, length)


def repeat_row(rng, filler, cuts, length: int, random_tokens: bool, vocab_size: int) -> Piece:
    """A passage of the row comes back later, word for word: practice for copying over a distance."""
    passage_length = int(rng.integers(24, min(256, length // 4)))
    first = int(rng.integers(0, length // 2))
    if random_tokens:
        passage = rng.integers(300, vocab_size, size=passage_length).astype(np.int16)
        start = Piece(passage, np.full(passage_length, IGNORED, dtype=np.uint8))
        insertions = [(first, start)]
    else:
        passage = filler[first : first + passage_length]
        insertions = []
    for _ in range(int(rng.integers(1, 4))):
        again = int(rng.integers(first + passage_length, length - passage_length + 1))
        insertions.append((again, plain(passage)))
    insertions.sort(key=lambda item: item[0])
    return assemble(filler, insertions, length)
