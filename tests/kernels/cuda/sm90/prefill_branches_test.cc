// The prefill branches on a Hopper GPU against the CPU, on every way through the chain of kernels:
// one chunk or several, blocks attended inline or through partials.

#include "kernels/cuda/sm90/prefill_branches.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cuda/context.h"
#include "kernels/nsa.h"
#include "tests/kernels/attention_world.h"
#include "tests/kernels/geometries.h"
#include "tests/kernels/step.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

constexpr int kHopper = 90;

struct Case {
  Geometry geometry;
  cuda::PrefillTuning tuning;
};
void PrintTo(const Case& c, std::ostream* os) {
  *os << c.geometry.name << "Chunk" << c.tuning.chunk_tiles << "Inline" << c.tuning.inline_blocks;
}

std::vector<Case> Cases() {
  constexpr DType kBF16 = DType::kBF16, kF16 = DType::kF16;
  constexpr DeviceType kCuda = DeviceType::kCuda;
  // More partial results of a token than the merging kernel has room for at once.
  constexpr NsaShape kThreeFreeShape{32, 16, 64, 6, 1, 2, 96};
  const Geometry geometries[] = {
      {"ThreeFreeD128Bf16", kThreeFreeShape, 2, 16, 128, 128, kBF16, kCuda, kBF16},
      {"PaperD128Bf16", kPaperShape, 1, 16, 128, 128, kBF16, kCuda, kBF16},
      {"SmallPaperD192x128F16", kSmallPaperShape, 2, 16, 192, 128, kF16, kCuda, kF16},
      {"SmallPaperD64Bf16", kSmallPaperShape, 2, 16, 64, 64, kBF16, kCuda, kBF16}};
  const cuda::PrefillTuning tunings[] = {{.chunk_tiles = 64, .inline_blocks = 64},
                                         {.chunk_tiles = 64, .inline_blocks = 0},
                                         {.chunk_tiles = 3, .inline_blocks = 7}};
  std::vector<Case> cases;
  for (const Geometry& geometry : geometries) {
    for (const cuda::PrefillTuning& tuning : tunings) cases.push_back({geometry, tuning});
  }
  return cases;
}

// A step of three sequences, and the inputs of its attention.
struct Inputs {
  AttentionWorld world;
  Step step;
  Tensor q, gates, cmp, blocks;

  explicit Inputs(const Geometry& g) : world(g, {Length(g), 70, Length(g)}) {
    step.AddChunk(0, 0, 150);
    step.AddChunk(1, 3, 70);
    step.AddChunk(2, Length(g) - 200, Length(g) - 1);
    std::mt19937 random(5);
    q = Converted(world.Queries(step.tokens()), g.activation);
    gates = RandomTensor(DType::kF32, {step.num_tokens(), world.num_heads(), 3}, random, 2);
    cmp = RandomTensor(g.activation, {step.num_tokens(), world.num_heads(), g.d_v}, random);
    blocks = Tensor(DType::kI32, {step.num_tokens(), g.num_kv_heads, g.shape.num_selected});
    for (int64_t item = 0; item < step.num_tokens() * g.num_kv_heads; ++item) {
      const auto t = static_cast<size_t>(item / g.num_kv_heads);
      const auto chosen = world.ChosenBlocks(step.tokens()[t], item % g.num_kv_heads);
      std::copy(chosen.begin(), chosen.end(), blocks.data<int32_t>() + item * g.shape.num_selected);
    }
  }
  // Past the selection and one inline boundary, within the own block.
  static int64_t Length(const Geometry& g) {
    return (g.shape.num_selected + 9) * g.shape.block_tokens + 7;
  }
};

std::vector<double> Expected(const Inputs& in) {
  const Geometry& g = in.world.geometry();
  const TestTokens map(in.step.tokens());
  const Tensor q = Converted(in.q, DType::kF32), cmp = Converted(in.cmp, DType::kF32);
  const F32Cache sel(in.world.tokens_cache()), win(in.world.ring_cache());
  const auto branch = [&] {
    return Tensor(DType::kF32, {in.step.num_tokens(), in.world.num_heads(), g.d_v});
  };
  const Tensor sel_out = branch(), win_out = branch(), out = branch();
  const Tensor lse(DType::kF32, {in.step.num_tokens(), in.world.num_heads()});
  ThreadPool threads(2);
  const Stream stream{.threads = &threads};
  const float scale = in.world.scale();
  SelectedAttention({g.shape, map.map(), q, sel.kv, in.blocks, sel_out, lse, scale}, stream);
  WindowAttention({g.shape.window_tokens, map.map(), q, win.kv, win_out, lse, scale}, stream);
  CombineBranches({in.gates, cmp, sel_out, win_out, out}, stream);
  return Elements(out);
}

class CudaPrefillBranchesTest : public ::testing::TestWithParam<Case> {};

TEST_P(CudaPrefillBranchesTest, MatchesCpu) {
  if (!HasDevice(DeviceType::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  const auto& [g, tuning] = GetParam();
  const Inputs in(g);
  const TestTokens host_map(in.step.tokens());
  const Tensor tiles = in.step.Tiles();
  const Tensor out(g.activation, {in.step.num_tokens(), in.world.num_heads(), g.d_v});
  OnDevice on(DeviceType::kCuda);
  const cuda::Context& context = *on.stream().cuda;
  if (context.compute_capability() != kHopper) GTEST_SKIP() << "this GPU is no Hopper";

  TokenMap tokens = on(host_map.map());
  tokens.tiles = on(tiles);
  const SparseAttentionExtent extent{.shape = g.shape,
                                     .num_tokens = in.step.num_tokens(),
                                     .num_seqs = in.world.tokens_cache().table().view().dim(0),
                                     .max_pages = in.world.tokens_cache().table().view().dim(1),
                                     .num_heads = in.world.num_heads(),
                                     .num_kv_heads = g.num_kv_heads,
                                     .d_k = g.d_k,
                                     .d_v = g.d_v,
                                     .activation = g.activation,
                                     .cache_dtype = g.dtype};
  const cuda::PrefillBranchesArgs args{
      .shape = g.shape,
      .tokens = tokens,
      .q = on(in.q),
      .gate_logits = on(in.gates),
      .cmp = on(in.cmp),
      .blocks = on(in.blocks),
      .sel = on(in.world.tokens_cache().kv()),
      .win = on(in.world.ring_cache().kv()),
      .out = on(out),
      .scratch = on.Scratch(cuda::PrefillBranchesScratchBytes(extent, tuning)),
      .softmax_scale = in.world.scale(),
      .tuning = tuning};
  ASSERT_TRUE(cuda::CanRunPrefillBranches(args));
  cuda::LaunchPrefillBranches(args, context.num_sms(), context.stream());
  on.Fetch();
  EXPECT_TRUE(IsClose(out, Expected(in), StepTolerance(g)));
}

INSTANTIATE_TEST_SUITE_P(Paths, CudaPrefillBranchesTest, ::testing::ValuesIn(Cases()),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace nsa::testing
