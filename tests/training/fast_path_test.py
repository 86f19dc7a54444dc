"""The trained layers compute the reference's function, and a converted trunk starts as the trunk."""

import dataclasses
import os

import pytest

torch = pytest.importorskip("torch")

from nsa_torch import reference
from nsa_torch.kernels import Kernels
from nsa_torch.layer import compress
from nsa_torch.model import FastModel, convert_trunk
from nsa_torch.train import SIZES, settings_for

CPU = torch.device("cpu")


def fast_model(settings, seed: int) -> FastModel:
    torch.manual_seed(seed)
    model = FastModel(settings, CPU, torch.float32, compiled=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (parameter.dim() == 1))
    return model


def losses(model, tokens, **options):
    return model.losses(tokens[:, :-1], tokens[:, 1:], model.context(tokens.shape[1] - 1, **options))


def test_losses_gradients_and_choices_equal_the_reference():
    settings = dataclasses.replace(SIZES["tiny"], num_key_value_heads=2)
    model = fast_model(settings, 0)
    plain = reference.NsaForCausalLM(settings)
    plain.load_state_dict(model.state_dict())
    tokens = torch.randint(0, 8192, (1, 385))
    traces, plain_traces = [], []
    context = model.context(384)
    fast, _, _ = model.losses(tokens[:, :-1], tokens[:, 1:], context, traces)
    logits = plain(tokens[:, :-1], plain_traces)
    slow = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    ).view_as(fast)
    torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-5)
    for (chosen, _), expected in zip(traces, plain_traces):
        assert (chosen == expected["chosen"]).all()
    fast.mean().backward()
    slow.mean().backward()
    expected = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-5, rtol=1e-3, msg=name)


def test_window_of_flex_attention_equals_masks():
    settings = SIZES["tiny"]
    masked = Kernels(settings, 256, CPU, fused=False)
    fused = Kernels(settings, 256, CPU, fused=True)
    q, k, v = torch.randn(1, 4, 256, 16), torch.randn(1, 1, 256, 16), torch.randn(1, 1, 256, 16)
    torch.testing.assert_close(masked.window(q, k, v), fused.window(q, k, v), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1")
@pytest.mark.parametrize("heads, kv_heads, num_tokens", [(16, 1, 256), (8, 2, 192)])
def test_chosen_block_kernels_equal_masks(heads, kv_heads, num_tokens):
    from nsa_torch.selected import selected_attention

    torch.manual_seed(2)
    q = torch.randn(2, heads, num_tokens, 16, requires_grad=True)
    k, v = (torch.randn(2, kv_heads, num_tokens, 16, requires_grad=True) for _ in range(2))
    own, block = torch.arange(num_tokens)[:, None] // 64, torch.arange(num_tokens // 64)
    chosen = ((torch.rand(2, kv_heads, num_tokens, len(block)) < 0.5) | (block == own)) & (block <= own)
    mask = reference.selected_mask(chosen, 64, heads // kv_heads)
    slow, _ = reference.masked_attention(q, k, v, mask)
    fast = selected_attention(q, k, v, chosen, 64)
    gradient = torch.randn_like(slow)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)
    pairs = zip(torch.autograd.grad(fast, (q, k, v), gradient), torch.autograd.grad(slow, (q, k, v), gradient))
    for a, b in pairs:
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_converted_trunk_is_the_trunk():
    trunk = fast_model(settings_for("tiny", "full"), 3)
    model = fast_model(settings_for("tiny", "nsa"), 4)
    convert_trunk(trunk, model, noise=0.0)
    tokens = torch.randint(0, 8192, (1, 513))
    before, _, _ = losses(trunk, tokens)
    after, _, _ = losses(model, tokens, sel_dense=True)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)
    k, attention = torch.randn(1, 1, 64, 16), model.model.layers[0].self_attn
    rows = compress(k, attention.cmp.phi_k, attention.cmp.pos_k, model.settings.nsa)
    torch.testing.assert_close(rows[:, :, 0], k[:, :, :32].mean(dim=2))


def test_alignment_reaches_only_the_selector():
    model = fast_model(settings_for("tiny", "nsa"), 5)
    tokens = torch.randint(0, 8192, (1, 513))
    _, _, align = losses(model, tokens, sel_dense=True, align_positions=torch.arange(400, 464)[None])
    assert align > 0
    align.backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched and all(
        any(part in name for part in ("cmp.k_proj", "phi_k", "pos_k")) for name in touched
    )
