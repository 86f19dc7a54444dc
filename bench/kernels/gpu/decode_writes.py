"""What a decode step writes to a layer's caches before it attends: the times that decode_bench.py adds to its results.

Tokens are appended to three streams of K and V, and compressed rows come from an MLP with 128 hidden units, as in the
8B-class model of bench/engine. Every layer has caches and weights of its own.
"""

import torch
import torch.nn.functional as F

import nsa_capi

NUM_HIDDEN = 128
NUM_LAYERS = 16


def make_call(writes, sparse, world):
    """A layer's call over the caches of `sparse`, and the tensors that it points to beside those of `sparse`."""
    def randn(*shape, dtype=world.dtype):
        return torch.randn(*shape, device="cuda", dtype=dtype)

    k, v, heads, span = world.d_k, world.d_v, world.num_kv_heads, world.span_tokens
    columns = world.num_heads * (k + 3) + 3 * heads * (k + v)
    raw = randn(*world.win[0].shape), randn(*world.win[1].shape)
    tensors = {
        "packed": randn(sparse.num_tokens, columns),
        "inv_freq": 500000.0 ** (-torch.arange(0, k, 2, device="cuda") / k),
        "position_k": randn(heads, span, k, dtype=torch.float32), "position_v": randn(heads, span, v, dtype=torch.float32),
        "fc1_k": randn(heads, NUM_HIDDEN, span * k) / (span * k) ** 0.5, "fc2_k": randn(heads, k, NUM_HIDDEN) / NUM_HIDDEN ** 0.5,
        "fc1_v": randn(heads, NUM_HIDDEN, span * v) / (span * v) ** 0.5, "fc2_v": randn(heads, v, NUM_HIDDEN) / NUM_HIDDEN ** 0.5}
    call = nsa_capi.WritesCall(sparse=sparse, num_hidden=NUM_HIDDEN, raw=sparse.win,
                               **{name: tensor.data_ptr() for name, tensor in tensors.items()})
    call.raw.k, call.raw.v = (tensor.data_ptr() for tensor in raw)
    call.scratch_bytes = writes.scratch_bytes(call)
    tensors.update(raw=raw, scratch=torch.empty(call.scratch_bytes, dtype=torch.uint8, device="cuda"))
    call.scratch = tensors["scratch"].data_ptr()
    return call, tensors


def check(library):
    """Values of an appended and of an emitted row: that the call's parts are where the kernels look for them."""
    stream = torch.cuda.Stream()
    writes = nsa_capi.Writes(library, stream)
    position = 1023
    world = nsa_capi.SparseWorld(1, position + 1)
    sparse, t = world.decode_call([0], [position])
    call, tensors = make_call(writes, sparse, world)
    written = [t["q"], t["gates"], *world.sel, *world.win, *world.rows, *tensors["raw"]]
    before = [tensor.clone() for tensor in written]
    torch.cuda.synchronize()
    call.apart = 1
    writes.append(call)
    torch.cuda.synchronize()
    apart = [tensor.clone() for tensor in written]
    for tensor, contents in zip(written, before):
        tensor.copy_(contents)
    torch.cuda.synchronize()
    call.apart = 0
    writes.append(call)
    torch.cuda.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(written, apart)), "one launch differs from two operations"
    heads, d, slot = world.num_kv_heads, world.d_v, int(world.slots[0, 0])
    stored = [world.sel[1][int(world.table[0, position // world.block_tokens]), :, position % world.block_tokens],
              world.win[1][slot, :, position % world.ring_rows], tensors["raw"][1][slot, :, position % world.ring_rows]]
    for stream_index, values in enumerate(stored):
        column = world.num_heads * world.d_k + stream_index * heads * (world.d_k + d) + heads * world.d_k
        assert torch.equal(values, tensors["packed"][0, column:column + heads * d].view(heads, d)), stream_index
    row = world.num_rows(position + 1) - 1
    tokens = torch.arange(row * world.span_stride, position + 1, device="cuda") % world.ring_rows
    span = tensors["raw"][1][slot][:, tokens].float() + tensors["position_v"]
    units = F.gelu(torch.einsum("kux,kx->ku", tensors["fc1_v"].float(), span.flatten(1)))
    expected = torch.einsum("kdu,ku->kd", tensors["fc2_v"].float(), units)
    at = row + world.row_offset
    emitted = world.rows[1][int(world.table[0, at // world.page_rows]), :, at % world.page_rows].float()
    error = float((emitted - expected).abs().max() / expected.abs().max())
    assert error < 0.01, error
    writes.close()
    print(f"check append and emission: largest error {100 * error:.2f} % of the largest value")


def table(library, cases):
    """Per (tokens, batch): us of a layer's appends where no and where every token completes a span, in one launch and by
    the two operations apart; of attention; and of appends and attention after each other."""
    rows = []
    stream = torch.cuda.Stream()
    writes = nsa_capi.Writes(library, stream)
    for num_tokens, batch in cases:
        sparse, (worlds, t) = nsa_capi.layer_calls(NUM_LAYERS, batch, num_tokens)
        made = [make_call(writes, call, world) for call, world in zip(sparse, worlds)]

        def time(*runs):
            return nsa_capi.time_graph([lambda call=call: [run(call) for run in runs] for call, _ in made], stream=stream)

        def attend(call):
            library.fused_decode(call.sparse)

        row = {"tokens": num_tokens, "batch": batch}
        for name, position in (("none", num_tokens - 2), ("all", num_tokens - 1)):
            t["position"].fill_(position)
            torch.cuda.synchronize()
            for apart in (1, 0):
                for call, _ in made:
                    call.apart = apart
                key = name + ("_apart" if apart else "")
                row[f"append_{key}_us"], row[f"layer_{key}_us"] = time(writes.append), time(writes.append, attend)
        row["attention_us"] = time(attend)
        rows.append(row)
        print(f"{num_tokens} x {batch}: " + ", ".join(f"{name[:-3]} {us:.1f}" for name, us in row.items() if name.endswith("_us")),
              flush=True)
        del made, sparse, worlds, t
        torch.cuda.empty_cache()
    writes.close()
    return rows
