#include "tests/kernels/sparse_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/nsa.h"
#include "tests/support/compare.h"

namespace nsa::testing {

Outputs Outputs::Pick(const std::vector<int64_t>& tokens) const {
  const auto pick = [&](const Tensor& all) {
    const auto num_tokens = static_cast<int64_t>(tokens.size());
    Tensor some(all.view().dtype(), {num_tokens, all.view().dim(1), all.view().dim(2)});
    for (int64_t i = 0; i < num_tokens; ++i) {
      const TensorView from = all.view().Slice(tokens[static_cast<size_t>(i)], 1);
      std::memcpy(some.view().Slice(i, 1).raw(), from.raw(), static_cast<size_t>(from.num_bytes()));
    }
    return some;
  };
  return {pick(out), pick(blocks)};
}

Outputs RunStep(const AttentionWorld& world, const Step& step, ThreadPool* threads,
                const StepRunner& run) {
  const Geometry& g = world.geometry();
  const TestTokens host_map(step.tokens());
  const Tensor tiles = step.Tiles(), gates = world.Gates(step.tokens());
  const Tensor q = Converted(world.Queries(step.tokens()), g.activation);
  Outputs outputs{Tensor(g.activation, {step.num_tokens(), world.num_heads(), g.d_v}),
                  Tensor(DType::kI32, {step.num_tokens(), g.num_kv_heads, g.shape.num_selected})};
  OnDevice on(g.device, threads);
  TokenMap tokens = on(host_map.map());
  tokens.num_decode_tokens = step.num_decode_tokens();
  tokens.tiles = on(tiles);
  const SparseAttentionExtent extent{
      .shape = g.shape,
      .num_tokens = step.num_tokens(),
      .num_seqs = world.tokens_cache().table().view().dim(0),
      .max_pages = std::max(world.tokens_cache().table().view().dim(1),
                            world.rows_cache().table().view().dim(1)),
      .num_heads = world.num_heads(),
      .num_kv_heads = g.num_kv_heads,
      .d_k = g.d_k,
      .d_v = g.d_v,
      .activation = g.activation,
      .cache_dtype = g.dtype};
  const SparseAttentionArgs args{
      .shape = g.shape,
      .tokens = tokens,
      .q = on(q),
      .gate_logits = on(gates),
      .rows = on(world.rows_cache().kv()),
      .sel = on(world.tokens_cache().kv()),
      .win = on(world.ring_cache().kv()),
      .out = on(outputs.out),
      .blocks = on(outputs.blocks),
      .scratch = on.Scratch(SparseAttentionScratchBytes(extent, on.stream())),
      .softmax_scale = world.scale()};
  run ? run(on, args) : SparseAttention(args, on.stream());
  on.Fetch();
  return outputs;
}

Tensor Combined(const AttentionWorld& world, const Step& step, const Tensor& blocks, Of of) {
  const Geometry& g = world.geometry();
  const TestTokens map(step.tokens());
  const Tensor q = world.Queries(step.tokens());
  const F32Cache rows(world.rows_cache()), sel(world.tokens_cache()), win(world.ring_cache());
  for (const F32Cache* cache : {&rows, &sel, &win}) {
    float* v = cache->v.data<float>();
    const auto magnitude = [](float x) { return std::abs(x); };
    if (of == Of::kMagnitudes) std::transform(v, v + cache->v.num_elements(), v, magnitude);
  }
  const auto branch = [&] {
    return Tensor(DType::kF32, {step.num_tokens(), world.num_heads(), g.d_v});
  };
  const Tensor cmp_out = branch(), sel_out = branch(), win_out = branch(), out = branch();
  const Tensor lse(DType::kF32, {step.num_tokens(), world.num_heads()});
  ThreadPool threads(2);
  const Stream stream{.threads = &threads};
  CompressedAttention({g.shape, map.map(), q, rows.kv, cmp_out, lse, world.scale()}, stream);
  SelectedAttention({g.shape, map.map(), q, sel.kv, blocks, sel_out, lse, world.scale()}, stream);
  WindowAttention({g.shape.window_tokens, map.map(), q, win.kv, win_out, lse, world.scale()},
                  stream);
  CombineBranches({world.Gates(step.tokens()), cmp_out, sel_out, win_out, out}, stream);
  return Converted(out, DType::kF32);
}

void CheckOutputs(const AttentionWorld& world, const Step& step, const Outputs& outputs) {
  const Geometry& g = world.geometry();
  const auto combined = [&](Of of) { return Elements(Combined(world, step, outputs.blocks, of)); };
  const std::vector<double> expected = combined(Of::kValues);
  if (g.activation == DType::kF32) {
    EXPECT_TRUE(IsClose(outputs.out, expected, StepTolerance(g)));
    return;
  }
  const std::vector<double> values = combined(Of::kMagnitudes);
  const double rounding = g.activation == DType::kBF16 ? 0x1p-8 : 0x1p-11;
  constexpr double kF32 = 1e-4;  // sums and exponentials
  const Tolerance usual = StepTolerance(g);
  double largest_bound = 0;
  size_t num_far = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double bound = rounding * (2 * values[i] + std::abs(expected[i])) + kF32 * values[i];
    const double actual = outputs.out.At(static_cast<int64_t>(i));
    const double error = std::abs(actual - expected[i]);
    ASSERT_LE(error, bound) << "element " << i << " is " << actual << ", expected " << expected[i];
    largest_bound = std::max(largest_bound, bound);
    num_far += error > usual.absolute && error > usual.relative * std::abs(expected[i]) ? 1 : 0;
  }
  EXPECT_LE(num_far, expected.size() / 10000);
  // Many small errors of one sign.
  EXPECT_TRUE(IsClose(outputs.out, expected, {largest_bound, usual.relative}));
}

void CheckBlocks(const AttentionWorld& world, const Step& step, const Tensor& blocks) {
  const Geometry& g = world.geometry();
  const Tensor q = world.Queries(step.tokens());
  const double relative = g.activation == DType::kF32 ? 1e-5 : 1e-4;
  for (int64_t item = 0; item < step.num_tokens() * g.num_kv_heads; ++item) {
    const int64_t t = item / g.num_kv_heads, head = item % g.num_kv_heads;
    const int32_t* chosen = blocks.data<int32_t>() + item * g.shape.num_selected;
    BlockList list(chosen, std::find(chosen, chosen + g.shape.num_selected, -1));
    const TestToken& token = step.tokens()[static_cast<size_t>(t)];
    if (token.position < 0) {
      EXPECT_TRUE(list.empty());
      continue;
    }
    CheckChoice(world, token, head, q.data<float>() + item * g.group_size * g.d_k, list, relative);
  }
}

std::vector<Geometry> StepGeometries() {
  std::vector<Geometry> geometries = {
      {"SmallPaperG16D64F32", kSmallPaperShape, 2, 16, 64, 64},
      {"TinyG3D6x8F32", kTinyShape, 2, 3, 6, 8},
      {"PaperG1D16Bf16Cache", kPaperShape, 1, 1, 16, 16, DType::kBF16}};
  if (BuildDevices().size() == 1) return geometries;
  const size_t num_cpu = geometries.size();
  for (size_t i = 0; i < num_cpu; ++i) {
    geometries.push_back(geometries[i]);
    geometries.back().name += "Cuda";
    geometries.back().device = DeviceType::kCuda;
  }
  constexpr DType kBF16 = DType::kBF16, kF16 = DType::kF16;
  const auto add = [&](const char* name, const NsaShape& shape, int64_t group_size, int64_t d_k,
                       int64_t d_v, DType dtype) {
    geometries.push_back({name, shape, 2, group_size, d_k, d_v, dtype, DeviceType::kCuda, dtype});
  };
  add("PaperG16D128Bf16Cuda", kPaperShape, 16, 128, 128, kBF16);
  add("SmallPaperG16D128F16Cuda", kSmallPaperShape, 16, 128, 128, kF16);
  add("SmallPaperG16D192x128Bf16Cuda", kSmallPaperShape, 16, 192, 128, kBF16);
  add("SmallPaperG16D192x128F16Cuda", kSmallPaperShape, 16, 192, 128, kF16);
  add("SmallPaperG16D64Bf16Cuda", kSmallPaperShape, 16, 64, 64, kBF16);
  add("SmallPaperG16D64F16Cuda", kSmallPaperShape, 16, 64, 64, kF16);
  add("SmallPaperG4D128Bf16Cuda", kSmallPaperShape, 4, 128, 128, kBF16);
  add("SmallPaperG5D128Bf16Cuda", kSmallPaperShape, 5, 128, 128, kBF16);
  add("LlamaNsaG16D64Bf16Cuda", kLlamaNsaShape, 16, 64, 64, kBF16);
  add("UnpooledStrideG16D128Bf16Cuda", kUnpooledStrideShape, 16, 128, 128, kBF16);
  add("NoOverlapG16D128Bf16Cuda", kNoOverlapShape, 16, 128, 128, kBF16);
  add("OneForcedG16D128Bf16Cuda", kOneForcedShape, 16, 128, 128, kBF16);
  add("TinyG3D32Bf16Cuda", kTinyShape, 3, 32, 32, kBF16);
  return geometries;
}

}  // namespace nsa::testing
