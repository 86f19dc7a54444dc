"""Settings of a model, and their form in `config.json` (docs/checkpoint_format.md)."""

import dataclasses
from typing import Optional

PHI_KINDS = ("mean", "weighted_pool", "linear", "mlp")
CMP_ROPE_MODES = ("before", "after", "none")


@dataclasses.dataclass(frozen=True)
class NsaSettings:
    """The sparse settings: names and meaning as in docs/nsa.md."""

    span_tokens: int = 32
    span_stride: int = 16
    block_tokens: int = 64
    num_selected: int = 16
    num_initial: int = 1
    num_local: int = 2
    window_tokens: int = 512
    phi: str = "mlp"
    phi_hidden: int = 128
    cmp_rope: str = "after"
    cmp_position: bool = True
    shared_kv: bool = False
    v_head_dim: Optional[int] = None  # None: equal to head_dim

    def __post_init__(self):
        if self.span_tokens % self.span_stride or self.block_tokens % self.span_stride:
            raise ValueError("span_stride must divide span_tokens and block_tokens")
        if self.span_tokens > self.block_tokens:
            raise ValueError("span_tokens must not exceed block_tokens")
        if self.num_initial + self.num_local > self.num_selected:
            raise ValueError("num_initial + num_local must not exceed num_selected")
        if self.phi not in PHI_KINDS or self.cmp_rope not in CMP_ROPE_MODES:
            raise ValueError(f"unknown phi {self.phi!r} or cmp_rope {self.cmp_rope!r}")


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """One decoder. `attention` is "nsa" or "full" (a plain Llama)."""

    vocab_size: int = 8192
    hidden_size: int = 512
    intermediate_size: int = 1280
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    num_key_value_heads: int = 1
    head_dim: int = 64
    rms_norm_eps: float = 1e-5
    rope_theta: float = 100000.0
    max_position_embeddings: int = 8192
    tie_word_embeddings: bool = True
    attention: str = "nsa"
    nsa: NsaSettings = NsaSettings()

    def __post_init__(self):
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be divisible by num_key_value_heads")
        if self.attention not in ("nsa", "full"):
            raise ValueError(f"unknown attention {self.attention!r}")

    @property
    def group_size(self) -> int:
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def v_head_dim(self) -> int:
        if self.attention == "full":
            return self.head_dim
        return self.nsa.v_head_dim or self.head_dim

    def to_config_json(self) -> dict:
        """The content of config.json."""
        architecture = "NsaForCausalLM" if self.attention == "nsa" else "LlamaForCausalLM"
        config = {
            "architectures": [architecture],
            "model_type": "nsa" if self.attention == "nsa" else "llama",
            "hidden_act": "silu",
            "torch_dtype": "bfloat16",
            "bos_token_id": 1,
            "eos_token_id": 2,
            "attention_bias": False,
            "mlp_bias": False,
        }
        for field in dataclasses.fields(self):
            if field.name not in ("attention", "nsa"):
                config[field.name] = getattr(self, field.name)
        if self.attention == "nsa":
            nsa = dataclasses.asdict(self.nsa)
            nsa["v_head_dim"] = self.v_head_dim
            if self.nsa.phi != "mlp":
                del nsa["phi_hidden"]
            config["nsa_config"] = nsa
        return config

    @staticmethod
    def from_config_json(config: dict) -> "ModelSettings":
        names = {field.name for field in dataclasses.fields(ModelSettings)}
        values = {name: config[name] for name in names if name in config}
        is_nsa = config["architectures"][0] == "NsaForCausalLM"
        if is_nsa:
            values["nsa"] = NsaSettings(**config["nsa_config"])
        return ModelSettings(**values, attention="nsa" if is_nsa else "full")
