// SparseAttention: on the CPU the bits of the operations that it is made of; on a GPU, through
// whatever kernels it has, the CPU's results for steps of decode tokens, tiles and padding.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "kernels/kv_store.h"
#include "kernels/nsa.h"
#include "tests/kernels/attention_world.h"
#include "tests/kernels/geometries.h"
#include "tests/kernels/step.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

struct Outputs {
  Tensor out;     // [T, H, d_v] activation
  Tensor blocks;  // [T, K, num_selected]
};

Tensor Gates(const AttentionWorld& world, const Step& step) {
  std::mt19937 random(21);
  return RandomTensor(DType::kF32, {step.num_tokens(), world.num_heads(), 3}, random, 2);
}

// before(on) enqueues what runs directly before.
Outputs RunStep(const AttentionWorld& world, const Step& step, ThreadPool* threads,
                const std::function<void(OnDevice&)>& before = {}) {
  const Geometry& g = world.geometry();
  const TestTokens host_map(step.tokens());
  const Tensor tiles = step.Tiles(), gates = Gates(world, step);
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
  if (before) before(on);
  SparseAttention(args, on.stream());
  on.Fetch();
  return outputs;
}

enum class Of : uint8_t { kValues, kMagnitudes };

// The branches on the CPU, the selected one over `blocks`, and their combination; or the same of
// the values' magnitudes.
Tensor Combined(const AttentionWorld& world, const Step& step, const Tensor& blocks,
                Of of = Of::kValues) {
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
  CombineBranches({Gates(world, step), cmp_out, sel_out, win_out, out}, stream);
  return Converted(out, DType::kF32);
}

// With 16-bit activations a kernel may round weights, what they add up to, and the output, each by
// half a unit in the last place: that bounds every error. StepTolerance they leave rarely.
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
  add("SmallPaperG16D64Bf16Cuda", kSmallPaperShape, 16, 64, 64, kBF16);
  add("SmallPaperG4D128Bf16Cuda", kSmallPaperShape, 4, 128, 128, kBF16);
  add("SmallPaperG5D128Bf16Cuda", kSmallPaperShape, 5, 128, 128, kBF16);
  add("LlamaNsaG16D64Bf16Cuda", kLlamaNsaShape, 16, 64, 64, kBF16);
  add("UnpooledStrideG16D128Bf16Cuda", kUnpooledStrideShape, 16, 128, 128, kBF16);
  add("NoOverlapG16D128Bf16Cuda", kNoOverlapShape, 16, 128, 128, kBF16);
  add("OneForcedG16D128Bf16Cuda", kOneForcedShape, 16, 128, 128, kBF16);
  add("TinyG3D32Bf16Cuda", kTinyShape, 3, 32, 32, kBF16);
  return geometries;
}

class SparseAttentionTest : public ::testing::TestWithParam<Geometry> {
 protected:
  void SetUp() override {
    if (!HasDevice(GetParam().device)) GTEST_SKIP() << "this machine has no GPU";
  }
  // Longer than the selection, so that importance decides.
  static int64_t Long() {
    return (GetParam().shape.num_selected + 5) * GetParam().shape.block_tokens + 7;
  }
};

TEST_P(SparseAttentionTest, DecodeTokens) {
  const NsaShape& shape = GetParam().shape;
  std::vector<int64_t> lengths = {Long(),
                                  1,
                                  shape.span_tokens - 1,
                                  shape.span_tokens,
                                  shape.num_selected * shape.block_tokens,
                                  shape.num_selected * shape.block_tokens + 1,
                                  shape.window_tokens,
                                  shape.window_tokens + 1,
                                  31,
                                  32,
                                  33,
                                  Long() - 64};
  const AttentionWorld world(GetParam(), lengths);
  Step step;
  for (const TestToken& token : world.LastTokens()) {
    step.AddDecode(token);
    if (token.sequence == 3) step.AddDecode({0, -1});
  }
  step.AddDecode({0, -1});
  const Outputs outputs = RunStep(world, step, nullptr);
  CheckBlocks(world, step, outputs.blocks);
  CheckOutputs(world, step, outputs);
  // Alone or batched, a token's bits are the same.
  for (size_t t = 0; t < step.tokens().size(); t += 3) {
    Step alone;
    alone.AddDecode(step.tokens()[t]);
    const Outputs single = RunStep(world, alone, nullptr);
    const int64_t per_token = single.blocks.num_elements();
    for (int64_t i = 0; i < per_token; ++i) {
      ASSERT_EQ(single.blocks.At(i), outputs.blocks.At(static_cast<int64_t>(t) * per_token + i));
    }
  }
}

// Row `row` of sequence 0, taken out of a cache: there it is NaN until Store has put it back.
class MovedRow {
 public:
  MovedRow(const Geometry& g, TestCache& cache, int64_t row)
      : cache_(cache),
        map_({{0, static_cast<int32_t>(row)}}),
        num_keys_(g.num_kv_heads * g.d_k),
        inv_freq_(DType::kF32, {g.d_k / 2}),
        q_(g.activation, {1, g.num_kv_heads, g.d_k}),
        packed_(g.activation, {1, num_keys_ + g.num_kv_heads * g.d_v}) {
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    for (int64_t head = 0; head < g.num_kv_heads; ++head) {
      for (int64_t c = 0; c < g.d_k; ++c) {
        packed_.Set(head * g.d_k + c, cache.K(0, row, head, c));
        cache.SetK(0, row, head, c, kNan);
      }
      for (int64_t c = 0; c < g.d_v; ++c) {
        packed_.Set(num_keys_ + head * g.d_v + c, cache.V(0, row, head, c));
        cache.SetV(0, row, head, c, kNan);
      }
    }
  }
  void Store(OnDevice& on) const {
    StoreProjectionsArgs args{.tokens = on(map_.map()),
                              .packed = on(packed_),
                              .inv_freq = on(inv_freq_),
                              .num_streams = 1,
                              .q = on(q_)};
    args.streams[0] = {.v_column = num_keys_, .rotate_k = false, .kv = on(cache_.kv())};
    StoreProjections(args, on.stream());
  }

 private:
  TestCache& cache_;
  TestTokens map_;
  int64_t num_keys_;
  Tensor inv_freq_, q_, packed_;
};

TEST_P(SparseAttentionTest, SeesTheRowsOfItsOwnStep) {
  const NsaShape& shape = GetParam().shape;
  const int64_t first = shape.num_selected * shape.block_tokens;
  for (int64_t length = first; length <= first + 65 * shape.span_stride;
       length += 13 * shape.span_stride) {
    const int64_t num_tokens =
        (length - shape.span_tokens) / shape.span_stride * shape.span_stride + shape.span_tokens;
    AttentionWorld world(GetParam(), {num_tokens});
    Step step;
    step.AddDecode({0, static_cast<int32_t>(num_tokens) - 1});
    const Outputs expected = RunStep(world, step, nullptr);
    const int64_t new_row = shape.NumRows(num_tokens) - 1 + shape.row_offset();
    const MovedRow sel(GetParam(), world.tokens_cache(), num_tokens - 1);
    const MovedRow win(GetParam(), world.ring_cache(), num_tokens - 1);
    const MovedRow row(GetParam(), world.rows_cache(), new_row);
    const Outputs outputs = RunStep(world, step, nullptr, [&](OnDevice& on) {
      sel.Store(on);
      win.Store(on);
      row.Store(on);
    });
    EXPECT_TRUE(IsIdentical(outputs.out, expected.out)) << num_tokens;
    EXPECT_TRUE(IsIdentical(outputs.blocks, expected.blocks)) << num_tokens;
  }
}

TEST_P(SparseAttentionTest, Tiles) {
  const int64_t length = Long();
  const AttentionWorld world(GetParam(), {length, 70, length});
  Step step;
  step.AddChunk(0, 0, length);
  step.AddChunk(1, 3, 70);
  step.AddChunk(2, length - 200, length - 1);
  const Outputs outputs = RunStep(world, step, nullptr);
  CheckBlocks(world, step, outputs.blocks);
  CheckOutputs(world, step, outputs);
}

TEST_P(SparseAttentionTest, DecodeTokensAndTiles) {
  const int64_t length = Long();
  const AttentionWorld world(GetParam(), {length, length - 1, 40, length});
  Step step;
  step.AddDecode({2, 39});
  step.AddDecode({0, static_cast<int32_t>(length) - 1});
  step.AddDecode({0, -1});
  step.AddChunk(3, length - 130, length);
  step.AddChunk(1, length - 67, length - 1);
  const Outputs outputs = RunStep(world, step, nullptr);
  CheckBlocks(world, step, outputs.blocks);
  CheckOutputs(world, step, outputs);
  const Outputs again = RunStep(world, step, nullptr);
  EXPECT_TRUE(IsIdentical(again.out, outputs.out));
  EXPECT_TRUE(IsIdentical(again.blocks, outputs.blocks));
}

// Scores whose exponentials neither fit a float nor leave anything of one, to both sides of 0.
TEST_P(SparseAttentionTest, LargeScores) {
  const Geometry& g = GetParam();
  const int64_t length = Long();
  const int64_t num_rows = g.shape.NumRows(length) + g.shape.row_offset();
  for (const auto& [factor, offset] : {std::pair{25.0, 0.0}, {2.0, 40.0}}) {
    AttentionWorld world(g, {length});
    TestCache& rows = world.rows_cache();
    for (int64_t row = g.shape.row_offset(); row < num_rows; ++row) {
      for (int64_t i = 0; i < g.num_kv_heads * g.d_k; ++i) {
        const int64_t head = i / g.d_k, c = i % g.d_k;
        rows.SetK(0, row, head, c, rows.K(0, row, head, c) * factor + offset);
      }
    }
    Step step;
    step.AddDecode({0, static_cast<int32_t>(length) - 1});
    step.AddChunk(0, 0, length - 1);
    const Outputs outputs = RunStep(world, step, nullptr);
    CheckBlocks(world, step, outputs.blocks);
    CheckOutputs(world, step, outputs);
  }
}

// Far more blocks of one importance than are chosen: kernels that narrow the choice down to the few
// above a bound get nearly all of them.
TEST_P(SparseAttentionTest, EqualKeys) {
  const Geometry& g = GetParam();
  const int64_t length = (g.shape.num_selected + 70) * g.shape.block_tokens + 7, hot_block = 40;
  AttentionWorld world(g, {length});
  const int64_t page_rows = g.shape.rows_per_page();
  const int64_t num_rows = g.shape.NumRows(length) + g.shape.row_offset();
  for (int64_t row = g.shape.row_offset(); row < num_rows; ++row) {
    const double key = row / page_rows == hot_block ? 4 : 0;
    for (int64_t head = 0; head < g.num_kv_heads; ++head) {
      for (int64_t c = 0; c < g.d_k; ++c) world.rows_cache().SetK(0, row, head, c, key);
    }
  }
  Step step;
  step.AddDecode({0, static_cast<int32_t>(length) - 1});
  step.AddChunk(0, length - 9, length - 2);
  const Outputs outputs = RunStep(world, step, nullptr);
  CheckBlocks(world, step, outputs.blocks);
  CheckOutputs(world, step, outputs);
  const bool is_forced = g.shape.num_selected == g.shape.num_initial + g.shape.num_local;
  if (g.group_size < 16 || is_forced) return;
  // Some head of 16 sees the one with other keys before all others.
  const int32_t* chosen = outputs.blocks.data<int32_t>();
  EXPECT_EQ(std::count(chosen, chosen + g.shape.num_selected, hot_block), 1);
}

INSTANTIATE_TEST_SUITE_P(Geometries, SparseAttentionTest, ::testing::ValuesIn(StepGeometries()),
                         [](const auto& info) { return info.param.name; });

TEST(SparseAttentionCpuTest, HasTheBitsOfItsOperations) {
  for (const Geometry& geometry : StepGeometries()) {
    if (geometry.device != DeviceType::kCpu) continue;
    const AttentionWorld world(geometry, {500, 40});
    Step step;
    step.AddDecode({1, 39});
    step.AddChunk(0, 400, 500);
    ThreadPool threads(3);
    const Outputs outputs = RunStep(world, step, &threads);
    if (geometry.dtype == DType::kF32) {
      EXPECT_TRUE(IsIdentical(outputs.out, Combined(world, step, outputs.blocks)));
    }
    const Outputs again = RunStep(world, step, &threads);
    EXPECT_TRUE(IsIdentical(again.out, outputs.out));
  }
}

}  // namespace
}  // namespace nsa::testing
