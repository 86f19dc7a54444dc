"""The training plan: one trunk with full attention, then the NSA model and the baseline from it.

Both continuations see the same rows in the same order for the same number of steps.
"""

import dataclasses

from .data import Mixture

BATCH_TOKENS = 65536


@dataclasses.dataclass(frozen=True)
class Stage:
    name: str
    attention: str  # "full" or "nsa"
    context: int
    num_steps: int
    init_from: str | None  # the stage whose weights it starts from
    mixture: Mixture
    stream: int  # seed of the rows: equal streams give equal batches
    schedule_start: int  # steps of the schedule before this stage
    schedule_steps: int  # steps of the whole schedule, 0: warm up, then constant
    warm_steps: int = 0  # NSA: steps with every block selected
    warm_align: float = 1.0  # weight of the alignment loss while warm
    align: float = 0.3  # and afterwards
    seconds: float = 0.0  # if set, the stage ends after this time


@dataclasses.dataclass(frozen=True)
class Plan:
    short_tokens: int = 30_000_000
    trunk_tokens: int = 720_000_000
    trunk_seconds: float = 0.0
    long_2k_tokens: int = 120_000_000
    long_8k_tokens: int = 90_000_000
    warm_share: float = 0.25
    batch_tokens: int = BATCH_TOKENS
    short_context: int = 512
    mid_context: int = 2048
    long_context: int = 8192

    def steps(self, tokens: int) -> int:
        return max(1, tokens // self.batch_tokens)

    def stages(self) -> dict:
        short_mix = Mixture(questions=0.5, repeats=0.2, random_repeats=0.5)
        mix = Mixture(questions=0.25, repeats=0.03)
        long_mix = Mixture(questions=0.35, repeats=0.0)
        mid, long = self.steps(self.long_2k_tokens), self.steps(self.long_8k_tokens)
        warm = int(self.warm_share * (mid + long))
        stages = [
            Stage("trunk_short", "full", self.short_context, self.steps(self.short_tokens), None,
                  short_mix, 11, 0, 0),
            Stage("trunk", "full", self.mid_context, self.steps(self.trunk_tokens), "trunk_short",
                  mix, 12, self.steps(self.short_tokens), 0, seconds=self.trunk_seconds),
        ]
        for kind in ("nsa", "full"):
            stages += [
                Stage(f"{kind}_2k", kind, self.mid_context, mid, "trunk", mix, 13, 0, mid + long,
                      warm_steps=warm),
                Stage(f"{kind}_8k", kind, self.long_context, long, f"{kind}_2k", long_mix, 14, mid,
                      mid + long),
            ]
        return {stage.name: stage for stage in stages}


def lr_factor(stage: Stage, step: int, warmup: int = 100, hold: float = 0.3) -> float:
    """Warm-up, constant, then (continuations only) linear decay to zero."""
    at = stage.schedule_start + step
    factor = min(1.0, (at + 1) / warmup)
    if stage.schedule_steps:
        left = (stage.schedule_steps - at) / stage.schedule_steps
        factor *= min(1.0, left / (1 - hold))
    return factor
