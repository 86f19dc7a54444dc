"""Measures a checkpoint: bits per byte, retrieval by length and depth, and what each branch does.

    python -m nsa_torch.evaluate --checkpoint run/nsa_8k.pt --attention nsa --data work \
        --tokenizer tokenizer.model --output nsa.json
"""

import argparse
import collections
import json
import math
import pathlib
import time

import numpy as np
import torch

from . import retrieval
from .model import FastModel
from .retrieval import ANSWER, BOS, Piece, assemble, plain, snap
from .train import SIZES, Corpus, settings_for

NUM_DEPTHS = 10
NUM_DIGITS = 5


def bits_per_byte(model, corpus, context: int, batch_rows: int) -> float:
    """The whole validation shard in consecutive windows, each opened by BOS; every token counts once."""
    tokens = np.asarray(corpus.val, dtype=np.int64)
    num_windows = -(-len(tokens) // context)
    padded = np.zeros(num_windows * context, dtype=np.int64)
    padded[: len(tokens)] = tokens
    rows = np.concatenate(
        [np.full((num_windows, 1), BOS), padded.reshape(num_windows, context)], axis=1
    )
    nats, seen = 0.0, 0
    for start in range(0, num_windows, batch_rows):
        losses, _, _ = forward(model, rows[start : start + batch_rows], batch_rows, context)
        flat = losses.flatten()[: len(tokens) - seen]
        nats += flat.double().sum().item()
        seen += flat.numel()
    return nats / math.log(2) / corpus.val_bytes


def forward(model, rows, batch_rows: int, context: int, traces=None):
    """rows [n, at most context + 1], padded to [batch_rows, context + 1]; results cut back to n rows."""
    full = np.zeros((batch_rows, context + 1), dtype=np.int64)
    full[: len(rows), : rows.shape[1]] = rows
    tokens = torch.from_numpy(full).to(model.device)
    with torch.no_grad():
        losses, correct, align = model.losses(
            tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), model.context(context), traces
        )
    return losses[: len(rows)], correct[: len(rows)], align


def planted_row(corpus, rng, length: int, depth: float, num_distractors: int):
    """One fact at `depth` of the filler (validation text), asked for at the end, among other facts.

    Returns (row of length + 1 tokens, kinds of its targets, position of the fact's first digit).
    """
    book = corpus.book
    keys = book.draw_keys(rng, 1 + num_distractors, held_out=True)
    digits = [rng.integers(0, 10, size=NUM_DIGITS) for _ in keys]
    question = book.question(0, keys[0], digits[0], at_end=True)
    start = int(rng.integers(0, len(corpus.val) - length))
    filler, cuts = corpus.val[start : start + length], corpus.val_cuts[start : start + length]
    limit = length - len(question.tokens) - book.fact_tokens * len(keys)
    places = np.flatnonzero(cuts)
    insertions = []
    for i, key in enumerate(keys):
        fraction = depth if i == 0 else rng.random()
        place = snap(places, int(fraction * limit), limit)
        cut = int(cuts[place]) if place < limit else retrieval.SENTENCE_CUT
        fact = book.fact(int(rng.integers(len(retrieval.FACTS))), key, digits[i], cut)
        insertions.append((place, i, fact))
    insertions.sort(key=lambda item: item[:2])
    body = assemble(filler, [(p, f) for p, _, f in insertions], length - len(question.tokens))
    position = 1  # BOS
    for place, i, fact in insertions:
        if i == 0:
            position += place + int(np.flatnonzero(fact.kinds == retrieval.IGNORED)[0])
            break
        position += len(fact.tokens)
    row = Piece.join([plain([BOS]), body, question])
    return row.tokens.astype(np.int64), row.kinds[1:], position


class BranchCount:
    """Per layer, at the answer's query positions: is the fact's block chosen, and the mean gates."""

    def __init__(self, num_layers: int):
        self.chosen, self.gates = np.zeros(num_layers), np.zeros((num_layers, 3))
        self.all_gates, self.count = np.zeros((num_layers, 3)), 0

    def add(self, traces, rows, block_tokens: int) -> None:
        """rows: (row in batch, query positions, position of the fact's first digit)."""
        for layer, (chosen, gates) in enumerate(traces):
            for row, queries, fact in rows:
                picked = chosen[row, 0, queries, fact // block_tokens]
                self.chosen[layer] += picked.float().mean().item()
                self.gates[layer] += gates[row][:, queries].float().mean(dim=(0, 1)).cpu().numpy()
                self.all_gates[layer] += gates[row].float().mean(dim=(0, 1)).cpu().numpy()
        self.count += len(rows)

    def result(self) -> dict:
        return {
            "fact_block_chosen": (self.chosen / self.count).tolist(),
            "answer_gates_cmp_sel_win": (self.gates / self.count).tolist(),
            "all_gates_cmp_sel_win": (self.all_gates / self.count).tolist(),
        }


def retrieval_cell(model, corpus, length, depth_index, count, distractors, context, batch_rows, branches):
    """Accuracy of whole answers and of digits for one (length, depth); the argmax must be right."""
    rng = np.random.default_rng([7, length, depth_index, distractors])
    answers = digits = 0
    distances = []
    for start in range(0, count, batch_rows):
        num = min(batch_rows, count - start)
        made = [
            planted_row(corpus, rng, length, (depth_index + rng.random()) / NUM_DEPTHS, distractors)
            for _ in range(num)
        ]
        traces = [] if branches is not None else None
        rows = np.stack([row for row, _, _ in made])
        _, correct, _ = forward(model, rows, batch_rows, context, traces)
        correct = correct.cpu().numpy()
        asked = []
        for i, (_, kinds, fact) in enumerate(made):
            queries = np.flatnonzero(kinds == ANSWER)
            right = correct[i, queries]
            answers += bool(right.all())
            digits += int(right.sum())
            distances.append((int(queries[0] + 1 - fact), bool(right.all())))
            asked.append((i, torch.as_tensor(queries, device=model.device), fact))
        if branches is not None:
            branches.add(traces, asked, model.settings.nsa.block_tokens)
    return answers / count, digits / (count * NUM_DIGITS), distances


def by_distance(pairs) -> dict:
    """Whole-answer accuracy by distance in tokens, in powers of two."""
    bins = collections.defaultdict(list)
    for distance, is_right in pairs:
        bins[2 ** int(math.log2(max(distance, 1)))].append(is_right)
    return {str(low): [float(np.mean(hits)), len(hits)] for low, hits in sorted(bins.items())}


def retrieval_grid(model, corpus, lengths, count, distractors, contexts, batch_tokens) -> dict:
    grid = {}
    for length in lengths:
        context = next(c for c in contexts if c >= length)
        branches = None
        if model.settings.attention == "nsa":
            branches = BranchCount(len(model.model.layers))
        cells, pairs = [], []
        for depth in range(NUM_DEPTHS):
            cell = retrieval_cell(
                model, corpus, length, depth, count, distractors, context, batch_tokens // context, branches
            )
            cells.append(cell[:2])
            pairs += cell[2]
        grid[str(length)] = {
            "answers_by_depth": [cell[0] for cell in cells],
            "digits_by_depth": [cell[1] for cell in cells],
            "answers": float(np.mean([cell[0] for cell in cells])),
            "digits": float(np.mean([cell[1] for cell in cells])),
            "by_distance": by_distance(pairs),
        }
        if branches is not None:
            grid[str(length)]["branches"] = branches.result()
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--attention", choices=("nsa", "full"), required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--contexts", default="2048,8192", help="compiled lengths, ascending")
    parser.add_argument("--lengths", default="512,1024,2048,4096,8192")
    parser.add_argument("--count", type=int, default=50, help="samples per length and depth")
    parser.add_argument("--distractors", default="0,4")
    parser.add_argument("--batch-tokens", type=int, default=131072)
    args = parser.parse_args()
    numbers = lambda text: [int(part) for part in text.split(",")]

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fast = device.type == "cuda"
    dtype = torch.bfloat16 if fast else torch.float32
    model = FastModel(settings_for(args.size, args.attention), device, dtype, compiled=fast)
    state = torch.load(args.checkpoint, map_location=device, weights_only=True)["model"]
    model.load_state_dict({name: t.to(torch.bfloat16).float() for name, t in state.items()})
    corpus, contexts = Corpus(args.data, args.tokenizer), numbers(args.contexts)
    started, result = time.time(), {"attention": args.attention, "bits_per_byte": {}, "retrieval": {}}
    for context in contexts:
        bits = bits_per_byte(model, corpus, context, args.batch_tokens // context)
        result["bits_per_byte"][str(context)] = bits
        print(f"{context}: {bits:.4f} bits per byte, {time.time() - started:.0f} s", flush=True)
    for distractors in numbers(args.distractors):
        grid = retrieval_grid(
            model, corpus, numbers(args.lengths), args.count, distractors, contexts, args.batch_tokens
        )
        result["retrieval"][str(distractors)] = grid
        summary = {length: round(cell["answers"], 3) for length, cell in grid.items()}
        print(f"{distractors} other facts: {summary}, {time.time() - started:.0f} s", flush=True)
        args.output.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
