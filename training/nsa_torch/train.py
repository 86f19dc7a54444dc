"""Runs stages of the plan; each ends with a checkpoint in the run folder.

    python -m nsa_torch.train --stages trunk_short,trunk --run run --data work --tokenizer tokenizer.model
"""

import argparse
import dataclasses
import json
import pathlib
import time

import numpy as np
import sentencepiece as spm
import torch

from . import data, export
from .config import ModelSettings, NsaSettings
from .model import FastModel, convert_trunk, initialise
from .optim import Optimiser
from .retrieval import ANSWER, NORMAL, FactBook
from .stages import Plan, Stage, lr_factor

ANSWER_WEIGHT = 8.0
ALIGN_QUERIES = 128
LOG_EVERY = 20
VALIDATE_EVERY = 200

SIZES = {
    "base": ModelSettings(nsa=NsaSettings(window_tokens=256)),
    "tiny": ModelSettings(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        head_dim=16, nsa=NsaSettings(window_tokens=64, num_selected=4, phi_hidden=48),
    ),
}


def settings_for(size: str, attention: str) -> ModelSettings:
    return dataclasses.replace(SIZES[size], attention=attention)


class Corpus:
    def __init__(self, folder: pathlib.Path, tokenizer_file: str):
        load = lambda name: np.load(folder / f"{name}.npy", mmap_mode="r")
        self.train, self.cuts = load("train"), load("train_cuts")
        self.val, self.val_cuts = load("val"), load("val_cuts")
        self.val_bytes = int((folder / "val_bytes.txt").read_text())
        self.book = FactBook(spm.SentencePieceProcessor(model_file=tokenizer_file))

    def val_rows(self, context: int, count: int, device):
        """A fixed validation batch, spread over the shard: tokens [count, context + 1]."""
        starts = np.linspace(0, len(self.val) - context - 1, count).astype(np.int64)
        rows = np.stack([self.val[s : s + context + 1] for s in starts]).astype(np.int64)
        rows[:, 0] = 1
        return torch.from_numpy(rows).to(device)


class Log:
    """Appends one JSON object per line and prints it."""

    def __init__(self, path: pathlib.Path):
        self.path, self.start = path, time.time()

    def write(self, **values) -> None:
        values["time"] = round(time.time() - self.start, 1)
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()})
        with open(self.path, "a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def align_positions(kinds, num_queries: int):
    """Random query positions, those that predict answer digits first: [B, P]."""
    score = torch.rand(kinds.shape, device=kinds.device) + (kinds == ANSWER)
    return score.topk(min(num_queries, kinds.shape[1]), dim=1).indices


class StageRun:
    def __init__(self, stage: Stage, model: FastModel, optimiser: Optimiser, corpus: Corpus, log, args):
        self.stage, self.model, self.optimiser = stage, model, optimiser
        self.corpus, self.log, self.args = corpus, log, args
        self.device = model.device
        self.weights = torch.tensor([0.0, 1.0, ANSWER_WEIGHT], device=self.device)
        self.sums = torch.zeros(6, device=self.device)
        self.tokens_seen = 0

    def load_batch(self, batch):
        tokens, kinds = (part.to(self.device, non_blocking=True) for part in batch)
        tokens = tokens.long()
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), kinds.long()

    def step(self, index: int, batch) -> None:
        stage = self.stage
        tokens, targets, kinds = self.load_batch(batch)
        options = {}
        align_weight = 0.0
        if stage.attention == "nsa":
            is_warm = index < stage.warm_steps
            align_weight = stage.warm_align if is_warm else stage.align
            options = {"sel_dense": is_warm, "align_positions": align_positions(kinds, ALIGN_QUERIES)}
        context = self.model.context(stage.context, **options)
        losses, correct, align = self.model.losses(tokens, targets, context)
        loss = (losses * self.weights[kinds]).sum() / kinds.numel()
        (loss + align_weight * align).backward()
        self.optimiser.step(lr_factor(stage, index))
        with torch.no_grad():
            normal, answer = kinds == NORMAL, kinds == ANSWER
            align = torch.as_tensor(align, device=self.device, dtype=torch.float32)
            self.sums += torch.stack([
                (losses * normal).sum(), normal.sum(), (losses * answer).sum(),
                (correct & answer).sum(), answer.sum(), align.detach(),
            ])
        self.tokens_seen += kinds.numel()

    def report(self, index: int, started: float) -> None:
        text, num_text, answer, right, num_answer, align = self.sums.tolist()
        self.sums.zero_()
        self.log.write(
            stage=self.stage.name, step=index + 1, tokens=self.tokens_seen,
            loss=text / max(num_text, 1), answer_loss=answer / max(num_answer, 1),
            digit_accuracy=right / max(num_answer, 1), align=align / LOG_EVERY,
            lr=lr_factor(self.stage, index), tokens_per_s=round(self.tokens_seen / (time.time() - started)),
        )

    def validate(self, index: int) -> None:
        """Loss of one fixed batch; run with gradients on so that no second graph is compiled."""
        stage = self.stage
        rows = self.corpus.val_rows(stage.context, self.args.batch_tokens // stage.context, self.device)
        options = {}
        if stage.attention == "nsa":
            kinds = torch.ones_like(rows[:, 1:])
            options = {
                "sel_dense": index < stage.warm_steps,
                "align_positions": align_positions(kinds, ALIGN_QUERIES),
            }
        context = self.model.context(stage.context, **options)
        losses, _, _ = self.model.losses(rows[:, :-1].contiguous(), rows[:, 1:].contiguous(), context)
        bytes_per_token = self.corpus.val_bytes / len(self.corpus.val)
        bits = losses.detach().mean().item() / np.log(2) / bytes_per_token
        self.log.write(stage=stage.name, step=index, validation_bits_per_byte=bits)

    def run(self) -> None:
        stage = self.stage
        rows = data.Rows(
            self.corpus.train, self.corpus.cuts, self.corpus.book, stage.context,
            self.args.batch_tokens // stage.context, stage.mixture, stage.stream,
        )
        self.validate(0)
        started = time.time()
        source = data.batches(rows, 0, stage.num_steps, self.args.workers)
        for index, batch in enumerate(source):
            self.step(index, batch)
            is_last = index + 1 == stage.num_steps
            if (index + 1) % LOG_EVERY == 0 or is_last:
                self.report(index, started)
                if stage.seconds and time.time() - started > stage.seconds:
                    break
            if (index + 1) % VALIDATE_EVERY == 0:
                self.validate(index + 1)
        self.validate(index + 1)
        self.log.write(
            stage=stage.name, done=True, steps=index + 1, tokens=self.tokens_seen,
            seconds=time.time() - started,
            peak_memory_gb=torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0,
        )


def save(path: pathlib.Path, model, optimiser, stage: Stage) -> None:
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state(), "stage": stage.name}, path)


def build(stage: Stage, args, device):
    """The stage's model and optimiser, from scratch or from an earlier stage's checkpoint."""
    fast = device.type == "cuda"
    dtype = torch.bfloat16 if fast else torch.float32
    model = FastModel(settings_for(args.size, stage.attention), device, dtype, compiled=fast)
    optimiser = Optimiser(model, args.muon_lr, args.adam_lr, args.phi_lr, fused=fast)
    if stage.init_from is None:
        initialise(model, seed=1)
        return model, optimiser
    saved = torch.load(args.run / f"{stage.init_from}.pt", map_location=device, weights_only=True)
    if stage.attention == "nsa" and stage.init_from.startswith("trunk"):
        trunk = FastModel(settings_for(args.size, "full"), device, dtype, compiled=False)
        trunk.load_state_dict(saved["model"])
        torch.manual_seed(2)
        convert_trunk(trunk, model)
    else:
        model.load_state_dict(saved["model"])
        if stage.schedule_start:  # the same schedule goes on
            optimiser.load(saved["optimiser"])
    return model, optimiser


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", required=True, help="comma-separated names of stages.py")
    parser.add_argument("--run", type=pathlib.Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of prepare")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--out", type=pathlib.Path, help="folder of the log and the bf16 weights")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.003, help="embeddings, norms, gates")
    parser.add_argument("--phi-lr", type=float, default=0.0007, help="phi and span positions")
    for field in dataclasses.fields(Plan):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(field.default), default=field.default)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    out = args.out or args.run
    plan = Plan(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Plan)})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    corpus, log = Corpus(args.data, args.tokenizer), Log(out / "log.jsonl")
    for name in args.stages.split(","):
        stage = plan.stages()[name]
        if (args.run / f"{name}.pt").exists():
            continue
        model, optimiser = build(stage, args, device)
        StageRun(stage, model, optimiser, corpus, log, args).run()
        save(args.run / f"{name}.pt", model, optimiser, stage)
        export.write_parts(model, out, name)


if __name__ == "__main__":
    main()
