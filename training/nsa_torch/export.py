"""Writes a model folder: config.json, model.safetensors (bf16), tokenizer and generation settings.

    python -m nsa_torch.export --weights nsa_8k.safetensors --tokenizer tokenizer.model --output models/NAME
"""

import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save, save_file

PART_BYTES = 14 * 1024 * 1024
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] | trim }}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)


def bf16_state(model) -> dict:
    return {name: t.detach().to(torch.bfloat16).cpu().contiguous() for name, t in model.state_dict().items()}


def write_parts(model, folder: pathlib.Path, name: str) -> None:
    """The bf16 weights as weights.part0.. in small files; earlier parts are replaced."""
    for old in folder.glob("weights.part*"):
        old.unlink()
    blob = save(bf16_state(model), metadata={"format": "pt", "stage": name})
    for i in range(0, len(blob), PART_BYTES):
        (folder / f"weights.part{i // PART_BYTES}").write_bytes(blob[i : i + PART_BYTES])


def join_parts(folder: pathlib.Path, path: pathlib.Path) -> None:
    parts = sorted(folder.glob("weights.part*"), key=lambda p: int(p.name.removeprefix("weights.part")))
    path.write_bytes(b"".join(part.read_bytes() for part in parts))


def write_json(path: pathlib.Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_model_folder(state: dict, settings, tokenizer: pathlib.Path, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    write_json(folder / "config.json", settings.to_config_json())
    if tokenizer.resolve() != (folder / "tokenizer.model").resolve():
        shutil.copyfile(tokenizer, folder / "tokenizer.model")
    write_json(
        folder / "tokenizer_config.json",
        {"add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>",
         "unk_token": "<unk>", "chat_template": CHAT_TEMPLATE},
    )
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": 1, "eos_token_id": 2, "do_sample": True, "temperature": 0.9, "top_p": 0.95,
         "top_k": 0, "min_p": 0.08},
    )


def main() -> None:
    from .train import SIZES, settings_for

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=pathlib.Path, required=True, help="safetensors, or folder of parts")
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--attention", choices=("nsa", "full"), default="nsa")
    parser.add_argument("--size", choices=SIZES, default="base")
    args = parser.parse_args()
    weights = args.weights
    if weights.is_dir():
        joined = weights.with_suffix(".safetensors")
        join_parts(weights, joined)
        weights = joined
    settings = settings_for(args.size, args.attention)
    write_model_folder(load_file(weights), settings, args.tokenizer, args.output)


if __name__ == "__main__":
    main()
