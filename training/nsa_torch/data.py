"""Corpus -> token files -> batches. A batch depends only on (stage, step), whatever the number of workers."""

import dataclasses
import lzma
import multiprocessing
import pathlib
import shutil

import numpy as np
import sentencepiece as spm
import torch

from . import retrieval
from .retrieval import BOS, EOS, NORMAL, PARAGRAPH, Piece

SEPARATOR = "<|endoftext|>"


def encode_documents(job) -> np.ndarray:
    documents, model_file = job
    tokenizer = spm.SentencePieceProcessor(model_file=model_file)
    return np.concatenate(
        [np.asarray(tokenizer.encode(text) + [EOS], dtype=np.int16) for text in documents]
    )


def read_documents(path: pathlib.Path) -> list:
    opened = lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else open(path)
    with opened as file:
        documents = file.read().split("\n" + SEPARATOR + "\n")
    documents = [text.strip("\n") for text in documents]
    return [text for text in documents if text and text != SEPARATOR]


def tokenise(paths, model_file: str, num_processes: int) -> np.ndarray:
    """All documents of all files, each followed by EOS."""
    jobs = []
    for path in paths:
        documents = read_documents(path)
        batch, size = [], 0
        for text in documents:
            batch.append(text)
            size += len(text)
            if size > 400_000:
                jobs.append((batch, model_file))
                batch, size = [], 0
        if batch:
            jobs.append((batch, model_file))
    with multiprocessing.Pool(num_processes) as pool:
        return np.concatenate(pool.map(encode_documents, jobs, chunksize=1))


def find_cuts(tokens: np.ndarray, tokenizer) -> np.ndarray:
    """uint8 per token: may a piece be inserted before it?"""
    pieces = [tokenizer.id_to_piece(i) for i in range(tokenizer.vocab_size())]
    stops = np.array([piece.endswith((".", "!", "?")) for piece in pieces])
    starts = np.array([piece.startswith("\u2581") and len(piece) > 1 for piece in pieces])
    cuts = np.zeros(len(tokens), dtype=np.uint8)
    cuts[1:][stops[tokens[:-1]] & starts[tokens[1:]]] = retrieval.SENTENCE_CUT
    cuts[1:][tokens[:-1] == PARAGRAPH] = retrieval.PARAGRAPH_CUT
    return cuts


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What share of the rows is which kind; the rest is plain text."""

    questions: float
    repeats: float
    random_repeats: float = 0.0  # share of the repeats that copy random tokens


class Rows:
    """A map-style dataset of whole batches: tokens [B, T + 1] int16 and target kinds [B, T] uint8."""

    def __init__(self, corpus, cuts, book, context: int, batch_rows: int, mixture: Mixture, seed: int):
        self.corpus, self.cuts, self.book = corpus, cuts, book
        self.context, self.batch_rows = context, batch_rows
        self.mixture, self.seed = mixture, seed
        self.rows_per_epoch = (len(corpus) - 2 * context) // context
        self.epoch, self.order, self.phase = -1, None, 0

    def filler_start(self, row: int) -> int:
        """Every epoch visits each piece of the corpus once, in a new order and with a new phase."""
        epoch, index = divmod(row, self.rows_per_epoch)
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self.epoch, self.order = epoch, rng.permutation(self.rows_per_epoch)
            self.phase = int(rng.integers(self.context))
        return int(self.order[index]) * self.context + self.phase

    def row(self, row: int) -> Piece:
        rng = np.random.default_rng([self.seed, 1, row])
        start, length = self.filler_start(row), self.context
        filler, cuts = self.corpus[start : start + length], self.cuts[start : start + length]
        kind, mixture = rng.random(), self.mixture
        if kind < mixture.questions:
            return retrieval.question_row(self.book, rng, filler, cuts, length)
        if kind < mixture.questions + mixture.repeats:
            is_random = rng.random() < mixture.random_repeats
            return retrieval.repeat_row(rng, filler, cuts, length, is_random, 8192)
        return Piece(filler, np.full(length, NORMAL, dtype=np.uint8))

    def __getitem__(self, step: int):
        rows = [self.row(step * self.batch_rows + i) for i in range(self.batch_rows)]
        tokens = np.full((self.batch_rows, self.context + 1), BOS, dtype=np.int16)
        tokens[:, 1:] = np.stack([row.tokens for row in rows])
        kinds = np.stack([row.kinds for row in rows])
        return torch.from_numpy(tokens), torch.from_numpy(kinds)


def batches(rows: Rows, first_step: int, num_steps: int, num_workers: int):
    return iter(
        torch.utils.data.DataLoader(
            rows,
            batch_size=None,
            sampler=range(first_step, first_step + num_steps),
            num_workers=num_workers,
            prefetch_factor=4 if num_workers else None,
            pin_memory=torch.cuda.is_available(),
        )
    )


def pack(text_folder, packed_folder, model_file: str, num_processes: int) -> None:
    """Text files -> one NAME.tokens.xz (int16) each: smaller than the compressed text."""
    packed_folder = pathlib.Path(packed_folder)
    packed_folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(pathlib.Path(text_folder).glob("*.txt*")):
        tokens = tokenise([path], model_file, num_processes)
        name = path.name.split(".")[0]
        (packed_folder / f"{name}.tokens.xz").write_bytes(lzma.compress(tokens.tobytes(), preset=9))
        if name.startswith("val"):
            num_bytes = sum(len(text.encode()) for text in read_documents(path))
            (packed_folder / "val_bytes.txt").write_text(str(num_bytes))


def read_packed(path) -> np.ndarray:
    return np.frombuffer(lzma.decompress(path.read_bytes()), dtype=np.int16)


def unpack(packed_folder, work_folder, model_file: str) -> None:
    """Packed tokens -> train.npy, val.npy, their cuts, and val_bytes.txt."""
    packed_folder, work_folder = pathlib.Path(packed_folder), pathlib.Path(work_folder)
    work_folder.mkdir(parents=True, exist_ok=True)
    paths = sorted(packed_folder.glob("*.tokens.xz"))
    with multiprocessing.Pool(len(paths)) as pool:
        shards = dict(zip((path.name for path in paths), pool.map(read_packed, paths, chunksize=1)))
    tokenizer = spm.SentencePieceProcessor(model_file=model_file)
    val = shards.pop("val.tokens.xz")
    for split, tokens in (("train", np.concatenate(list(shards.values()))), ("val", val)):
        np.save(work_folder / f"{split}.npy", tokens)
        np.save(work_folder / f"{split}_cuts.npy", find_cuts(tokens, tokenizer))
    shutil.copyfile(packed_folder / "val_bytes.txt", work_folder / "val_bytes.txt")
