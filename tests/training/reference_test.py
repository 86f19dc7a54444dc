"""Edges of the NSA layer, on the plain reference."""

import dataclasses

import pytest

torch = pytest.importorskip("torch")

from nsa_torch import reference
from nsa_torch.config import CMP_ROPE_MODES, PHI_KINDS, ModelSettings, NsaSettings

SMALL = ModelSettings(
    vocab_size=50, hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=6,
    num_key_value_heads=2, head_dim=8,
    nsa=NsaSettings(num_selected=4, window_tokens=70, phi_hidden=12),
)


def with_nsa(**values) -> ModelSettings:
    return dataclasses.replace(SMALL, nsa=dataclasses.replace(SMALL.nsa, **values))


def branches(layer, x):
    """The three outputs of a layer before the gates."""
    model, nsa = layer.model, layer.model.nsa
    positions = torch.arange(x.shape[1])
    q = reference.rope(layer.heads(layer.q_proj, x, model.head_dim), positions, model.rope_theta)
    rows_k, rows_v = layer.compressed_rows(x, positions)
    cmp_out, p = reference.masked_attention(q, rows_k, rows_v, reference.row_mask(x.shape[1], nsa))
    num_blocks = -(-x.shape[1] // nsa.block_tokens)
    importance = reference.block_importance(p, model.num_key_value_heads, num_blocks, nsa)
    chosen = reference.choose_blocks(importance, nsa)
    outputs = [cmp_out]
    for name, mask in (
        ("sel", reference.selected_mask(chosen, nsa.block_tokens, model.group_size)),
        ("win", reference.window_mask(x.shape[1], nsa.window_tokens)),
    ):
        k, v = layer.branch_kv(name, x)
        k = reference.rope(k, positions, model.rope_theta)
        full, _ = reference.masked_attention(q, k, v, reference.causal_mask(x.shape[1]))
        out, _ = reference.masked_attention(q, k, v, mask)
        outputs.append((out, full))
    return outputs, importance, chosen


@pytest.mark.parametrize("num_tokens", [1, 31, 32, 33, 63, 64, 65, 200])
@pytest.mark.parametrize("phi", PHI_KINDS)
def test_causal_and_finite(num_tokens, phi):
    torch.manual_seed(0)
    model = reference.NsaForCausalLM(with_nsa(phi=phi)).double()
    tokens = torch.randint(0, 50, (2, 200))
    whole = model(tokens)
    assert torch.isfinite(whole).all()
    torch.testing.assert_close(model(tokens[:, :num_tokens]), whole[:, :num_tokens])


@pytest.mark.parametrize("cmp_rope", CMP_ROPE_MODES)
@pytest.mark.parametrize("shared_kv", [False, True])
def test_edges_equal_full_attention(cmp_rope, shared_kv):
    """Fewer than n blocks: selected = full. Fewer than w tokens: window = full. No row yet: zero."""
    torch.manual_seed(1)
    layer = reference.NsaAttention(with_nsa(cmp_rope=cmp_rope, shared_kv=shared_kv)).double()
    x = torch.randn(1, 400, 24, dtype=torch.float64)
    (cmp_out, (sel, sel_full), (win, win_full)), importance, _ = branches(layer, x)
    torch.testing.assert_close(sel[:, :, :256], sel_full[:, :, :256])
    torch.testing.assert_close(win[:, :, :70], win_full[:, :, :70])
    assert (sel - sel_full)[:, :, 256:].abs().max() > 1e-3
    assert (win - win_full)[:, :, 70:].abs().max() > 1e-3
    assert (cmp_out[:, :, :31] == 0).all() and (importance[:, :, :31] == 0).all()
    assert (cmp_out[:, :, 31] != 0).all(), "the span that ends at t is visible to t"


def test_choice_is_forced_then_best_then_lowest():
    nsa = NsaSettings(num_selected=5, num_initial=1, num_local=2)
    importance = torch.zeros(1, 1, 640, 10)
    importance[..., 6], importance[..., 4] = 2.0, 1.0
    chosen = reference.choose_blocks(importance, nsa)
    picked = lambda t: chosen[0, 0, t].nonzero().flatten().tolist()
    assert picked(639) == [0, 4, 6, 8, 9]
    assert picked(64 * 7) == [0, 1, 4, 6, 7], "block 6 is forced, a tie at 0 goes to block 1"
    assert picked(0) == [0]
    assert picked(64 * 4) == [0, 1, 2, 3, 4]
    tied = reference.choose_blocks(torch.zeros(1, 1, 640, 10), nsa)
    assert tied[0, 0, 639].nonzero().flatten().tolist() == [0, 1, 2, 8, 9]


def test_importance_weights():
    """32/16/64: rows 4j-1 .. 4j+3 with weights 1, 2, 2, 2, 1."""
    p = torch.eye(12)[None, None]  # "query" i looks at row i alone
    importance = reference.block_importance(p, 1, 3, NsaSettings())[0, 0]
    assert importance[:, 1].tolist() == [0, 0, 0, 1, 2, 2, 2, 1, 0, 0, 0, 0]
    assert importance[:, 0].tolist()[:5] == [2, 2, 2, 1, 0]


def test_state_dict_names_follow_the_checkpoint_format():
    names = set(reference.NsaForCausalLM(SMALL).state_dict())
    layer = "model.layers.0."
    for name in ("self_attn.cmp.k_proj.weight", "self_attn.sel.v_proj.weight", "self_attn.g_proj.weight",
                 "self_attn.cmp.phi_k.fc1.weight", "self_attn.cmp.phi_v.fc2.weight", "self_attn.cmp.pos_k",
                 "mlp.down_proj.weight", "post_attention_layernorm.weight"):
        assert layer + name in names
    shared = reference.NsaForCausalLM(with_nsa(shared_kv=True, phi="mean", cmp_position=False))
    assert layer + "self_attn.k_proj.weight" in shared.state_dict()
    assert not any("cmp" in name for name in shared.state_dict())


def test_config_round_trip():
    settings = with_nsa(v_head_dim=8)
    assert ModelSettings.from_config_json(settings.to_config_json()) == settings
    full = dataclasses.replace(ModelSettings(), attention="full")
    assert ModelSettings.from_config_json(full.to_config_json()) == full
    with pytest.raises(ValueError):
        NsaSettings(span_tokens=24, span_stride=16)
