"""Writes the golden models and their logits: python tests/golden/make_goldens.py [name ...]

Each golden is a folder with a tiny random checkpoint (`config.json`, `model*.safetensors`) and `golden.safetensors`:

    tokens     [T] i32      the sequence
    positions  [N] i32      positions whose logits are kept
    logits     [N, V] f32   of a forward pass in fp64, once over all T tokens
    prompt     [1] i32      the greedy continuation starts after this many of `tokens`
    greedy     [G] i32      the continuation, one full forward pass per token

Sparse models come from training/nsa_torch/reference.py, dense ones from Hugging Face transformers. Weights are scaled so
that attention is far from uniform. A seed is accepted only if the same pass in fp32 gives the same logits within
MAX_FP32_ERROR (so that no choice of blocks hangs on rounding) and every greedy step wins by MIN_MARGIN.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "training"))

from nsa_torch.config import ModelSettings, NsaSettings  # noqa: E402
from nsa_torch.reference import NsaForCausalLM  # noqa: E402

OUT = ROOT / "tests" / "golden"
MAX_FP32_ERROR = 2e-5
MIN_MARGIN = 1e-2
VOCAB = 64


@dataclasses.dataclass
class Golden:
    name: str
    settings: ModelSettings
    family: str = "paper"
    num_tokens: int = 264
    positions: tuple = tuple(range(201)) + tuple(range(252, 264))
    num_prompt: int = 150
    num_greedy: int = 24
    dtype: torch.dtype = torch.float32
    num_shards: int = 1


def sparse(heads, kv_heads, head_dim, nsa, **kwargs):
    settings = dict(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        rope_theta=10000.0,
        max_position_embeddings=16384,
        tie_word_embeddings=False,
        nsa=nsa,
    )
    return ModelSettings(**(settings | kwargs))


def grid() -> list[Golden]:
    """Every phi with every RoPE mode, over different shapes, group sizes and head dims."""
    shapes = [  # span, stride, block, selected, initial, local, window
        (8, 4, 16, 5, 1, 2, 20),
        (16, 4, 16, 4, 1, 1, 33),
        (8, 8, 8, 6, 2, 3, 7),
        (4, 2, 32, 3, 0, 1, 64),
    ]
    heads = [(3, 1, 8, 8), (8, 2, 8, 12), (16, 1, 8, 4), (6, 2, 6, 6)]  # H, K, d_k, d_v: groups of 3, 4, 16, 3
    goldens = []
    for p, phi in enumerate(("mean", "weighted_pool", "linear", "mlp")):
        for r, mode in enumerate(("before", "after", "none")):
            span, stride, block, selected, initial, local, window = shapes[(p + r) % 4]
            num_heads, kv_heads, d_k, d_v = heads[(p + 2 * r) % 4]
            nsa = NsaSettings(
                span, stride, block, selected, initial, local, window, phi=phi, phi_hidden=10, cmp_rope=mode,
                cmp_position=(p + r) % 2 == 0, v_head_dim=d_v,
            )
            settings = sparse(num_heads, kv_heads, d_k, nsa, tie_word_embeddings=r == 1)
            goldens.append(Golden(f"nsa_{phi}_{mode}", settings))
    return goldens


def paper_goldens() -> list[Golden]:
    """The paper's spans and blocks; short, with bf16 weights, and long."""
    around_1024 = tuple(range(1016, 1033))
    nsa = NsaSettings(32, 16, 64, 8, 1, 2, 128, phi="mlp", phi_hidden=16)
    short = dict(num_tokens=1056, positions=tuple(range(201)) + around_1024, num_prompt=1000, num_greedy=16)
    long_nsa = dataclasses.replace(nsa, num_selected=16, window_tokens=512)
    shared = NsaSettings(
        32, 16, 64, 8, 1, 2, 96, phi="weighted_pool", cmp_rope="before", cmp_position=True, shared_kv=True,
    )
    return [
        Golden("nsa_paper", sparse(16, 1, 16, nsa), **short),
        Golden("nsa_paper_bf16", sparse(4, 1, 16, nsa, tie_word_embeddings=True), dtype=torch.bfloat16, num_shards=3),
        Golden("nsa_shared", sparse(4, 2, 16, shared), **short),
        Golden(
            "nsa_paper_long", sparse(2, 1, 16, long_nsa, rope_theta=100000.0), num_tokens=8208,
            positions=around_1024 + tuple(range(8184, 8201)), num_prompt=64, num_greedy=8,
        ),
    ]


def block_settings(block, selected, initial, local, window) -> NsaSettings:
    return NsaSettings(
        block, block, block, selected, initial, local, window, phi="mean", cmp_rope="before", cmp_position=False,
        shared_kv=True,
    )


def public_goldens() -> list[Golden]:
    """The two public families with shared KV and mean pooling."""
    around_1024 = tuple(range(1016, 1033))
    llama_nsa = sparse(16, 1, 16, block_settings(16, 6, 0, 1, 32), tie_word_embeddings=True)
    llama_nsa_long = sparse(2, 1, 16, block_settings(16, 16, 0, 1, 128), rope_theta=500000.0)
    fla = sparse(6, 2, 8, block_settings(16, 5, 1, 2, 24), rms_norm_eps=1e-6)
    fla_heads = sparse(2, 1, 64, block_settings(16, 5, 1, 2, 24), rms_norm_eps=1e-6, tie_word_embeddings=True)
    return [
        Golden("llama_nsa", llama_nsa, "llama_nsa", 1056, tuple(range(201)) + around_1024, 1000, 16),
        Golden(
            "llama_nsa_long", llama_nsa_long, "llama_nsa", 8208, around_1024 + tuple(range(8184, 8201)), 64, 8,
        ),
        Golden("fla_nsa", fla, "fla"),
        Golden("fla_nsa_default_heads", fla_heads, "fla"),
    ]


# ---- weights ---------------------------------------------------------------------------------------


def gain(name: str) -> float:
    """Standard deviation of a matrix, in units of 1 / sqrt(inputs)."""
    if "q_proj" in name or "k_proj" in name or "phi_k.fc2" in name:
        return 1.7
    return 2.0 if "lm_head" in name else 1.0


def scale_weights(model, seed: int, dtype: torch.dtype) -> None:
    """Random weights: sharp attention, visible positions, logits of a few units."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if name.endswith("norm.weight"):
            values = 1 + 0.2 * values
        elif "embed" in name or ".pos_" in name:
            values = 0.5 * values
        else:
            values = values * gain(name) / math.sqrt(parameter.shape[-1])
        parameter.data.copy_(values.to(dtype))  # only what the checkpoint can hold


# ---- checkpoints -----------------------------------------------------------------------------------


def llama_keys(golden: Golden) -> dict:
    config = golden.settings.to_config_json()
    nsa = config.pop("nsa_config")
    return config | {
        "architectures": ["LlamaNSAForCausalLM"],
        "model_type": "llama-nsa",
        "block_size": nsa["block_tokens"],
        "block_counts": nsa["num_selected"],
        "window_size": nsa["window_tokens"],
    }


def fla_keys(golden: Golden) -> dict:
    llama, settings = llama_keys(golden), golden.settings
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "rope_theta",
            "max_position_embeddings", "tie_word_embeddings", "bos_token_id", "eos_token_id", "block_size",
            "block_counts", "window_size")
    return {key: llama[key] for key in kept} | {
        "architectures": ["NSAForCausalLM"],
        "model_type": "nsa",
        "num_heads": settings.num_attention_heads,
        "num_kv_heads": settings.num_key_value_heads,
        # The library writes its config's default, whatever its layers were built with.
        "head_dim": 32 if settings.head_dim == 64 else settings.head_dim,
        "norm_eps": settings.rms_norm_eps,
        "hidden_act": "swish",
        "qkv_bias": False,
        "elementwise_affine": True,
    }


def fla_name(name: str) -> str:
    for ours, theirs in (("embed_tokens", "embeddings"), ("self_attn", "attn"), ("input_layernorm", "attn_norm"),
                         ("post_attention_layernorm", "mlp_norm")):
        name = name.replace(ours, theirs)
    return name


def config_of(golden: Golden) -> dict:
    config = {"paper": lambda g: g.settings.to_config_json(), "llama_nsa": llama_keys, "fla": fla_keys}
    return config[golden.family](golden) | {"torch_dtype": str(golden.dtype).removeprefix("torch.")}


def save_tensors(folder: pathlib.Path, tensors: dict, num_shards: int) -> None:
    if num_shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    names = sorted(tensors)
    weight_map = {}
    for shard in range(num_shards):
        file = f"model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
        part = names[shard::num_shards]
        save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def save(golden, config: dict, tensors: dict, tokens, logits, greedy) -> None:
    folder = OUT / golden.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_tensors(folder, {k: v.to(golden.dtype).contiguous() for k, v in tensors.items()}, golden.num_shards)
    save_file(
        {
            "tokens": tokens.to(torch.int32),
            "positions": torch.tensor(golden.positions, dtype=torch.int32),
            "logits": logits[list(golden.positions)].float().contiguous(),
            "prompt": torch.tensor([golden.num_prompt], dtype=torch.int32),
            "greedy": torch.tensor(greedy, dtype=torch.int32),
        },
        folder / "golden.safetensors",
    )


# ---- search for a seed -----------------------------------------------------------------------------


def run(model, tokens):
    with torch.no_grad():
        out = model(tokens[None])
    return getattr(out, "logits", out)[0]


def greedy_tokens(model, tokens, golden):
    """The continuation and the smallest margin by which a token won."""
    sequence, margin = tokens[: golden.num_prompt].tolist(), math.inf
    for _ in range(golden.num_greedy):
        best = run(model, torch.tensor(sequence))[-1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        sequence.append(best.indices[0].item())
    return sequence[golden.num_prompt :], margin


def accept(golden, model, seed: int):
    """(tokens, logits, greedy) of this seed's model, or None."""
    tokens = torch.randint(VOCAB, (golden.num_tokens,), generator=torch.Generator().manual_seed(seed))
    picked = list(golden.positions)
    narrow = run(model.float(), tokens)[picked].double()
    logits = run(model.double(), tokens)
    error = (narrow - logits[picked]).abs().max().item()
    print(f"{golden.name} seed {seed}: fp32 error {error:.1e}", flush=True)
    if error > MAX_FP32_ERROR:
        return None
    greedy, margin = greedy_tokens(model, tokens, golden)
    print(f"{golden.name} seed {seed}: greedy margin {margin:.1e}", flush=True)
    return (tokens, logits, greedy) if margin >= MIN_MARGIN else None


def make_sparse(golden: Golden) -> None:
    for seed in range(1, 100):
        model = NsaForCausalLM(golden.settings).eval()
        scale_weights(model, seed, golden.dtype)
        found = accept(golden, model, seed)
        if found is None:
            continue
        rename = fla_name if golden.family == "fla" else str
        tensors = {rename(name): value for name, value in model.state_dict().items()}
        return save(golden, config_of(golden), tensors, *found)
    raise RuntimeError(f"{golden.name}: no seed was accepted")


# ---- dense models of transformers ------------------------------------------------------------------


def dense_goldens() -> list[tuple[Golden, dict]]:
    llama3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    return [
        (Golden("llama", None), dict(heads=6, kv_heads=2, rope=plain, tie=False)),
        (Golden("llama_rope_llama3", None, num_shards=2), dict(heads=4, kv_heads=4, rope=llama3, tie=True)),
        (Golden("llama_rope_linear", None, dtype=torch.float16), dict(heads=4, kv_heads=1, rope=linear, tie=False)),
    ]


def make_dense(golden: Golden, heads: int, kv_heads: int, rope: dict, tie: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=kv_heads, head_dim=16, max_position_embeddings=512, rope_parameters=rope,
        tie_word_embeddings=tie, rms_norm_eps=1e-5,
    )
    config.architectures = ["LlamaForCausalLM"]
    for seed in range(1, 100):
        model = LlamaForCausalLM(config).eval()
        scale_weights(model, seed, golden.dtype)
        found = accept(golden, model, seed)
        if found is None:
            continue
        tensors = {k: v for k, v in model.state_dict().items() if not (tie and k == "lm_head.weight")}
        return save(golden, json.loads(config.to_json_string(use_diff=False)), tensors, *found)
    raise RuntimeError(f"{golden.name}: no seed was accepted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="goldens to make; all of them by default")
    names = parser.parse_args().names
    for golden in grid() + paper_goldens() + public_goldens():
        if not names or golden.name in names:
            make_sparse(golden)
    for golden, settings in dense_goldens():
        if not names or golden.name in names:
            make_dense(golden, **settings)


if __name__ == "__main__":
    main()
