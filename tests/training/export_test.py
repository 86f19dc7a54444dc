"""Parts join to the same weights, and a model folder holds what docs/checkpoint_format.md asks for."""

import json

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from nsa_torch import export, reference
from nsa_torch.config import ModelSettings
from nsa_torch.train import settings_for


def test_round_trip(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PART_BYTES", 100_000)
    settings = settings_for("tiny", "nsa")
    model = reference.NsaForCausalLM(settings)
    parts = tmp_path / "parts"
    parts.mkdir()
    export.write_parts(model, parts, "test")
    assert len(list(parts.glob("weights.part*"))) > 10
    export.join_parts(parts, tmp_path / "joined.safetensors")
    state = safetensors.load_file(tmp_path / "joined.safetensors")
    vocabulary = tmp_path / "tokenizer.model"
    vocabulary.write_bytes(tokenizer.serialized_model_proto())
    export.write_model_folder(state, settings, vocabulary, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == ["NsaForCausalLM"] and config["nsa_config"]["num_selected"] == 4
    again = reference.NsaForCausalLM(ModelSettings.from_config_json(config))
    again.load_state_dict(safetensors.load_file(tmp_path / "model" / "model.safetensors"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.to(torch.bfloat16).float()), name
