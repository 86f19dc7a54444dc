"""The CUDA kernels in a PyTorch process, through the C functions of capi*.cc."""

import ctypes
import datetime
import sys

import torch

_P, _I = ctypes.c_void_p, ctypes.c_int64


class Cache(ctypes.Structure):
    _fields_ = [("k", _P), ("v", _P), ("table", _P), ("num_pages", _I), ("page_rows", _I), ("table_width", _I)]


class SparseCall(ctypes.Structure):
    _fields_ = [(name, _P) for name in ("q", "gates", "out", "blocks", "sequence", "position", "scratch")] + \
        [(name, Cache) for name in ("rows", "sel", "win")] + \
        [(name, _I) for name in ("num_tokens", "num_seqs", "num_heads", "num_kv_heads", "d_k", "d_v", "span_tokens",
                                 "span_stride", "block_tokens", "num_selected", "num_initial", "num_local", "window",
                                 "is_half", "scratch_bytes")]


class PrefillCall(ctypes.Structure):
    _fields_ = [("sparse", SparseCall), ("tiles", _P), ("cmp", _P), ("cmp_lse", _P), ("num_tiles", _I)]


class WritesCall(ctypes.Structure):
    _fields_ = [("sparse", SparseCall), ("raw", Cache)] + \
        [(name, _P) for name in ("packed", "inv_freq", "position_k", "position_v", "fc1_k", "fc2_k", "fc1_v", "fc2_v",
                                 "scratch")] + [("num_hidden", _I), ("scratch_bytes", _I), ("apart", _I)]


# "choose" runs the stage before it, too.
STAGES = ("gather", "compressed", "choose", "plan", "selected", "merge")
TILE_TOKENS = 64


class Library:
    def __init__(self, path: str):
        self.lib = ctypes.CDLL(path)

    def fused_decode(self, call: SparseCall):
        self.lib.nsa_fused_decode(ctypes.byref(call), ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))

    def dense_decode(self, call: SparseCall, lse: torch.Tensor):
        """Full attention over the tokens of the selected branch; lse [T, H] f32."""
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self.lib.nsa_dense_decode(ctypes.byref(call), ctypes.c_void_p(lse.data_ptr()), stream)

    def decode_stages(self):
        """When the blocks of the last decode call passed each of DECODE_STAGES, in us after the first saw the end of the
        kernel before: float64 [blocks, stages]. The library must have been compiled with NSA_DECODE_STAGES."""
        stamps = torch.zeros(_MAX_STAMPED_BLOCKS, len(DECODE_STAGES), dtype=torch.int64)
        assert self.lib.nsa_fused_decode_stages(ctypes.c_void_p(stamps.data_ptr())) == len(DECODE_STAGES)
        stamps = stamps[stamps[:, -1] > stamps[:, -1].max() - 10**6]  # not those of calls with more blocks before
        times = (stamps - stamps[:, _STARTED].min()).double() / 1000
        return torch.where(times.abs() > 1000, float("nan"), times)  # a block may have no tile


# Stages of the fused decode kernel in the order of kernels/cuda/sm90/fused_decode_stages.cuh. "scouts" load and choose
# while the other warps attend.
DECODE_STAGES = (
    "block runs", "position known", "kernel before has ended", "first tile of rows there", "compressed attention sent",
    "scouts: sums of the cluster there", "scouts: importances sent", "scouts: importances of the cluster there",
    "scouts: blocks chosen", "window attention sent", "first tile of chosen blocks there", "chosen blocks' attention sent",
    "scouts: results of the cluster there", "scouts: output written")
_STARTED = DECODE_STAGES.index("kernel before has ended")
_MAX_STAMPED_BLOCKS = 4096


class Context:
    """What calls of one stream need; the timed work has to use that stream, too."""

    def __init__(self, library: Library, stream: torch.cuda.Stream):
        self.lib = library.lib
        self.lib.nsa_open.restype = _P
        self.context = _P(self.lib.nsa_open(_I(torch.cuda.current_device()), _P(stream.cuda_stream)))

    def close(self):
        self.lib.nsa_close(self.context)


class Prefill(Context):
    """The prefill chain."""

    def scratch_bytes(self, call: PrefillCall):
        self.lib.nsa_prefill_scratch_bytes.restype = _I
        return self.lib.nsa_prefill_scratch_bytes(ctypes.byref(call))

    def chain(self, call: PrefillCall):
        self.lib.nsa_prefill(self.context, ctypes.byref(call))

    def dense(self, call: PrefillCall):
        """Full attention over the tokens of the selected branch."""
        self.lib.nsa_dense_prefill(self.context, ctypes.byref(call))

    def stage(self, call: PrefillCall, name: str):
        self.lib.nsa_prefill_stage(self.context, ctypes.byref(call), _I(STAGES.index(name)))


class Writes(Context):
    """What a decode step writes to the caches before it attends."""

    def scratch_bytes(self, call: WritesCall):
        self.lib.nsa_append_scratch_bytes.restype = _I
        return self.lib.nsa_append_scratch_bytes(self.context, ctypes.byref(call))

    def append(self, call: WritesCall):
        """Stores the step's tokens, filling q and gates of the call, and emits the rows whose spans they complete."""
        self.lib.nsa_append(self.context, ctypes.byref(call))


class SparseWorld:
    """Random paged caches of num_seqs sequences of num_tokens tokens each, and the call over them."""

    def __init__(self, num_seqs, num_tokens, num_heads=64, num_kv_heads=4, d_k=128, d_v=128, span_tokens=32,
                 span_stride=16, block_tokens=64, num_selected=16, num_initial=1, num_local=2, window=512,
                 ring_lead=64, extra_width=0, dtype=torch.bfloat16, seed=0):
        self.__dict__.update({k: v for k, v in locals().items() if k != "self"})
        generator = torch.Generator("cuda").manual_seed(seed)

        def randn(*shape):
            return torch.randn(*shape, device="cuda", dtype=dtype, generator=generator)

        self.page_rows = block_tokens // span_stride
        self.row_offset = span_tokens // span_stride - 1
        num_blocks = (num_tokens + block_tokens - 1) // block_tokens
        num_pages = num_blocks * num_seqs
        order = torch.randperm(num_pages, device="cuda", generator=generator)
        self.table = torch.full((num_seqs, num_blocks + extra_width), -1, dtype=torch.int32, device="cuda")
        self.table[:, :num_blocks] = order.view(num_seqs, num_blocks).int()
        self.slots = torch.randperm(num_seqs, device="cuda", generator=generator).int().view(num_seqs, 1)
        self.rows = (randn(num_pages, num_kv_heads, self.page_rows, d_k), randn(num_pages, num_kv_heads, self.page_rows, d_v))
        self.sel = (randn(num_pages, num_kv_heads, block_tokens, d_k), randn(num_pages, num_kv_heads, block_tokens, d_v))
        self.ring_rows = window + ring_lead - 1
        self.win = (randn(num_seqs, num_kv_heads, self.ring_rows, d_k), randn(num_seqs, num_kv_heads, self.ring_rows, d_v))

    def decode_call(self, sequences, positions, seed=1):
        """One token of each of `sequences` (lists); returns (call, tensors that it points to)."""
        generator = torch.Generator("cuda").manual_seed(seed)
        count = len(sequences)
        t = {
            "q": torch.randn(count, self.num_heads, self.d_k, device="cuda", generator=generator).to(self.dtype),
            "gates": torch.randn(count, self.num_heads, 3, device="cuda", generator=generator),
            "out": torch.full((count, self.num_heads, self.d_v), float("nan"), device="cuda", dtype=self.dtype),
            "blocks": torch.full((count, self.num_kv_heads, self.num_selected), -7, dtype=torch.int32, device="cuda"),
            "sequence": torch.tensor(sequences, dtype=torch.int32, device="cuda"),
            "position": torch.tensor(positions, dtype=torch.int32, device="cuda"),
            "scratch": torch.empty(count * self.num_kv_heads * (self.table.shape[1] + 64) * 80, dtype=torch.uint8, device="cuda"),
        }
        return self._sparse_call(t), t

    # t: at least what SparseCall points to beside the caches.
    def _sparse_call(self, t):
        names = {name for name, kind in SparseCall._fields_ if kind is _P}
        call = SparseCall(**{name: tensor.data_ptr() for name, tensor in t.items() if name in names})
        for name, table in (("rows", self.table), ("sel", self.table), ("win", self.slots)):
            k, v = getattr(self, name)
            setattr(call, name, Cache(k.data_ptr(), v.data_ptr(), table.data_ptr(), k.shape[0], k.shape[2], table.shape[1]))
        for name in ("num_heads", "num_kv_heads", "d_k", "d_v", "span_tokens", "span_stride", "block_tokens",
                     "num_selected", "num_initial", "num_local", "window", "num_seqs"):
            setattr(call, name, getattr(self, name))
        call.num_tokens = t["q"].shape[0]
        call.scratch_bytes = t["scratch"].numel()
        call.is_half = int(self.dtype == torch.float16)
        return call

    def prefill_call(self, prefill: Prefill, chunks, seed=1):
        """Tokens [first, first + count) of sequence s for every (s, first, count); (PrefillCall, tensors)."""
        generator = torch.Generator("cuda").manual_seed(seed)
        sequence, position, tiles = [], [], []
        for s, first, count in chunks:
            at = first
            while at < first + count:
                size = min(first + count, (at // TILE_TOKENS + 1) * TILE_TOKENS) - at
                tiles.append((s, len(position), size, at))
                sequence += [s] * size
                position += range(at, at + size)
                at += size
        num_tokens = len(position)

        def empty(*shape, dtype):
            return torch.empty(*shape, dtype=dtype, device="cuda")

        t = {
            "q": torch.randn(num_tokens, self.num_heads, self.d_k, device="cuda", dtype=self.dtype, generator=generator),
            "gates": torch.randn(num_tokens, self.num_heads, 3, device="cuda", generator=generator),
            "out": empty(num_tokens, self.num_heads, self.d_v, dtype=self.dtype).fill_(float("nan")),
            "blocks": empty(num_tokens, self.num_kv_heads, self.num_selected, dtype=torch.int32).fill_(-7),
            "sequence": torch.tensor(sequence, dtype=torch.int32, device="cuda"),
            "position": torch.tensor(position, dtype=torch.int32, device="cuda"),
            "tiles": torch.tensor(tiles, dtype=torch.int32, device="cuda"),
            "cmp": empty(num_tokens, self.num_heads, self.d_v, dtype=self.dtype),
            "cmp_lse": empty(num_tokens, self.num_heads, dtype=torch.float32),
            "scratch": empty(0, dtype=torch.uint8),
        }
        extra = {name: t[name].data_ptr() for name in ("tiles", "cmp", "cmp_lse")}
        call = PrefillCall(sparse=self._sparse_call(t), num_tiles=len(tiles), **extra)
        t["scratch"] = empty(prefill.scratch_bytes(call), dtype=torch.uint8)
        call.sparse = self._sparse_call(t)
        return call, t

    def num_rows(self, num_tokens):
        return 0 if num_tokens < self.span_tokens else (num_tokens - self.span_tokens) // self.span_stride + 1

    def reference(self, t, index):
        """Token `index` of a call, in fp32: (out [H, d_v], blocks per KV head, importances [K, num_blocks])."""
        s, position = int(t["sequence"][index]), int(t["position"][index])
        g = self.num_heads // self.num_kv_heads
        q = t["q"][index].float().view(self.num_kv_heads, g, self.d_k)
        gate = torch.sigmoid(t["gates"][index]).view(self.num_kv_heads, g, 3)
        num_blocks = position // self.block_tokens + 1
        pages = self.table[s, :num_blocks].long()
        scale = self.d_k ** -0.5

        def paged(cache):  # [K, tokens, d]
            return cache[pages].float().permute(1, 0, 2, 3).reshape(self.num_kv_heads, -1, cache.shape[3])

        def attend(k, v):
            if k.shape[1] == 0:
                return torch.zeros(self.num_kv_heads, g, self.d_v, device="cuda"), None
            p = torch.softmax(q @ k.transpose(1, 2) * scale, dim=-1)
            return p @ v, p

        count = self.num_rows(position + 1)
        rows = slice(self.row_offset, self.row_offset + count)
        cmp, p = attend(paged(self.rows[0])[:, rows], paged(self.rows[1])[:, rows])
        width = num_blocks * self.page_rows + self.row_offset
        sums = torch.zeros(self.num_kv_heads, width, device="cuda")
        if count:
            sums[:, rows] = p.sum(1)
        a, e = self.page_rows, self.row_offset + 1
        weights = torch.tensor([min(k + 1, a + e - 1 - k, a, e) for k in range(a + e - 1)], device="cuda").float()
        importance = (sums.unfold(1, a + e - 1, a)[:, :num_blocks] * weights).sum(-1)
        ranking = importance.clone()
        ranking[:, max(0, num_blocks - self.num_local):] = float("inf")
        ranking[:, :self.num_initial] = float("inf")
        chosen = torch.argsort(ranking, dim=1, descending=True, stable=True)[:, :min(self.num_selected, num_blocks)]
        return cmp, gate, importance, chosen.sort(dim=1).values, attend, paged, pages, s, position, q, scale

    def expected(self, t, index, blocks):
        """The output of token `index` if the choice is `blocks` [K, n] (-1 padded)."""
        cmp, gate, importance, chosen, attend, paged, pages, s, position, q, scale = self.reference(t, index)
        k, v = paged(self.sel[0]), paged(self.sel[1])
        sel = torch.empty_like(cmp)
        for head in range(self.num_kv_heads):
            ids = blocks[head][blocks[head] >= 0].long()
            tokens = (ids[:, None] * self.block_tokens + torch.arange(self.block_tokens, device="cuda")).flatten()
            tokens = tokens[tokens <= position]
            p = torch.softmax(q[head] @ k[head, tokens].T * scale, dim=-1)
            sel[head] = p @ v[head, tokens]
        window = torch.arange(max(0, position - self.window + 1), position + 1, device="cuda") % self.ring_rows
        slot = int(self.slots[s, 0])
        win, _ = attend(self.win[0][slot][:, window].float(), self.win[1][slot][:, window].float())
        out = gate[..., 0:1] * cmp + gate[..., 1:2] * sel + gate[..., 2:3] * win
        return out.reshape(self.num_heads, self.d_v), importance, chosen

    def dense_expected(self, t, index):
        """Full attention of token `index` of a call, in fp32: [H, d_v]."""
        *_, attend, paged, _, _, position, _, _ = self.reference(t, index)
        out, _ = attend(*(paged(cache)[:, :position + 1] for cache in self.sel))
        return out.reshape(self.num_heads, self.d_v)

    def bytes_read(self, num_tokens):
        """K and V bytes of one token's decode, as docs/nsa.md section 4 counts them."""
        rows = self.num_rows(num_tokens) + min(num_tokens, self.num_selected * self.block_tokens) + min(num_tokens, self.window)
        return rows * self.num_kv_heads * (self.d_k + self.d_v) * 2


def layer_calls(num_layers, batch, num_tokens, **options):
    """One decode step of `batch` sequences of num_tokens tokens: a call per layer, and what must be kept alive.

    Every layer has caches of its own. Tables, positions, queries and scratch are the same memory in all of them, as in
    an engine, where the step before has just written or read them."""
    worlds = [SparseWorld(batch, num_tokens, seed=layer, **options) for layer in range(num_layers)]
    first, tensors = worlds[0].decode_call(list(range(batch)), [num_tokens - 1] * batch)
    calls = []
    for world in worlds:
        call = SparseCall.from_buffer_copy(first)
        for name in ("rows", "sel", "win"):
            cache = getattr(call, name)
            cache.k, cache.v = (tensor.data_ptr() for tensor in getattr(world, name))
        calls.append(call)
    return calls, (worlds, tensors)


def check(world: SparseWorld, t, tolerance=0.02, tokens=None):
    """Largest error of a call's outputs against fp32; raises where a choice differs by more than rounding."""
    worst, differing = 0.0, 0
    for index in range(t["sequence"].shape[0]) if tokens is None else tokens:
        if int(t["position"][index]) < 0:
            assert (t["out"][index] == 0).all() and (t["blocks"][index] == -1).all()
            continue
        actual = t["blocks"][index]
        out, importance, chosen = world.expected(t, index, actual)
        for head in range(world.num_kv_heads):
            mine = set(actual[head][actual[head] >= 0].tolist())
            best = set(chosen[head].tolist())
            listed = actual[head][actual[head] >= 0]
            assert len(mine) == len(best) == listed.numel() and bool((listed[1:] > listed[:-1]).all()), (index, head, actual[head])
            extra, missing = sorted(mine - best), sorted(best - mine)
            for a in extra:
                for b in missing:
                    x, y = float(importance[head, a]), float(importance[head, b])
                    assert abs(x - y) <= 1e-4 * max(x, y), f"token {index} head {head}: block {a} ({x}) instead of {b} ({y})"
            differing += len(extra)
        error = float((t["out"][index].float() - out).abs().max())
        assert error == error and error < tolerance, f"token {index}: error {error}"
        worst = max(worst, error)
    return worst, differing


def facts_of_run():
    """What results say of the run that they are from."""
    return {"device": torch.cuda.get_device_name(), "command": " ".join(sys.argv),
            "date": datetime.date.today().isoformat()}


def time_calls(call, stream, repeats):
    """Median milliseconds of `call`, which enqueues work on `stream`."""
    times = []
    with torch.cuda.stream(stream):
        for _ in range(repeats + 2):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
    times = sorted(times[2:])
    return times[len(times) // 2]


def time_graph(calls, repeats=20, stream=None):
    """Median microseconds of one of `calls` (functions that enqueue work), all captured in one CUDA graph, on `stream` if
    they need a certain one."""
    stream = stream or torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for call in calls:
            call()
    times = []
    for _ in range(repeats + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / len(calls))
    times = sorted(times[3:])
    return times[len(times) // 2]
