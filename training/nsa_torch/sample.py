"""Continues a prompt with the plain reference model: slow, no cache, no dependence on the engine.

    python -m nsa_torch.sample --model models/NAME --prompt "Once upon a time" --tokens 150
"""

import argparse
import json
import pathlib

import sentencepiece as spm
import torch
from safetensors.torch import load_file

from .config import ModelSettings
from .reference import NsaForCausalLM


def load_model(folder: pathlib.Path):
    """The folder's model in fp32, and its tokenizer."""
    settings = ModelSettings.from_config_json(json.loads((folder / "config.json").read_text()))
    model = NsaForCausalLM(settings)
    model.load_state_dict({name: t.float() for name, t in load_file(folder / "model.safetensors").items()})
    return model.eval(), spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def draw(logits, temperature: float, top_p: float, min_p: float, generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    probabilities, order = torch.softmax(logits / temperature, dim=-1).sort(descending=True)
    keep = (probabilities.cumsum(0) - probabilities < top_p) & (probabilities >= min_p * probabilities[0])
    index = torch.multinomial(probabilities * keep, 1, generator=generator)
    return int(order[index])


@torch.no_grad()
def continue_text(model, tokenizer, prompt: str, num_tokens: int, options) -> str:
    """options: temperature, top_p, min_p, seed."""
    generator = torch.Generator().manual_seed(options.seed)
    ids = [tokenizer.bos_id()] + tokenizer.encode(prompt)
    for _ in range(num_tokens):
        token = draw(model(torch.tensor([ids]))[0, -1], options.temperature, options.top_p, options.min_p, generator)
        if token == tokenizer.eos_id():
            break
        ids.append(token)
    return tokenizer.decode(ids[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--temperature", type=float, default=0.9)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--min-p", type=float, default=0.08)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model, tokenizer = load_model(args.model)
    print(continue_text(model, tokenizer, args.prompt, args.tokens, args))


if __name__ == "__main__":
    main()
