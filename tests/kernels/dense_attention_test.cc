// DenseAttention of steps of decode tokens, tiles and padding, through whatever kernels the device
// has, against the CPU. attention_test.cc has its mathematics.

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kernels/nsa.h"
#include "tests/kernels/geometries.h"
#include "tests/kernels/step.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

AttentionOutputs RunDense(const AttentionWorld& world, const Step& step) {
  const Geometry& g = world.geometry();
  const TestTokens host_map(step.tokens());
  const Tensor tiles = step.Tiles(), q = Converted(world.Queries(step.tokens()), g.activation);
  AttentionOutputs outputs{Tensor(g.activation, {step.num_tokens(), world.num_heads(), g.d_v}),
                           Tensor(DType::kF32, {step.num_tokens(), world.num_heads()})};
  OnDevice on(g.device);
  TokenMap tokens = on(host_map.map());
  tokens.num_decode_tokens = step.num_decode_tokens();
  tokens.tiles = on(tiles);
  DenseAttention({tokens, on(q), on(world.tokens_cache().kv()), on(outputs.out), on(outputs.lse),
                  world.scale()},
                 on.stream());
  on.Fetch();
  return outputs;
}

AttentionOutputs Expected(const AttentionWorld& world, const Step& step) {
  const TestTokens map(step.tokens());
  const Tensor q = world.Queries(step.tokens());
  const F32Cache cache(world.tokens_cache());
  AttentionOutputs outputs{
      Tensor(DType::kF32, {step.num_tokens(), world.num_heads(), world.geometry().d_v}),
      Tensor(DType::kF32, {step.num_tokens(), world.num_heads()})};
  DenseAttention({map.map(), q, cache.kv, outputs.out, outputs.lse, world.scale()}, {});
  return outputs;
}

std::vector<Geometry> DenseGeometries() {
  std::vector<Geometry> geometries = {{"G4D64F32", kSmallPaperShape, 2, 4, 64, 64}};
  if (BuildDevices().size() == 1) return geometries;
  const auto add = [&](const char* name, int64_t group_size, int64_t d_k, int64_t d_v,
                       DType dtype) {
    geometries.push_back(
        {name, kSmallPaperShape, 2, group_size, d_k, d_v, dtype, DeviceType::kCuda, dtype});
  };
  add("G16D128Bf16Cuda", 16, 128, 128, DType::kBF16);
  add("G16D128F16Cuda", 16, 128, 128, DType::kF16);
  add("G16D192x128Bf16Cuda", 16, 192, 128, DType::kBF16);
  add("G16D192x128F16Cuda", 16, 192, 128, DType::kF16);
  add("G16D64Bf16Cuda", 16, 64, 64, DType::kBF16);
  add("G4D128Bf16Cuda", 4, 128, 128, DType::kBF16);
  add("G3D20Bf16Cuda", 3, 20, 20, DType::kBF16);
  return geometries;
}

// Those of the fast kernels with the largest pages, one KV head each; small on the CPU.
std::vector<Geometry> LongGeometries() {
  std::vector<Geometry> geometries = {{"G2D16F32", kSmallPaperShape, 1, 2, 16, 16}};
  for (Geometry geometry : DenseGeometries()) {
    if (geometry.group_size != 16 || geometry.d_v != 128) continue;
    geometry.num_kv_heads = 1;
    geometries.push_back(geometry);
  }
  return geometries;
}

class DenseAttentionTest : public ::testing::TestWithParam<Geometry> {
 protected:
  void SetUp() override {
    if (!HasDevice(GetParam().device)) GTEST_SKIP() << "this machine has no GPU";
  }
  static void Check(const AttentionWorld& world, const Step& step,
                    Tolerance tolerance = StepTolerance(GetParam())) {
    const AttentionOutputs actual = RunDense(world, step), expected = Expected(world, step);
    EXPECT_TRUE(IsClose(actual.out, Elements(expected.out), tolerance));
    EXPECT_TRUE(IsClose(actual.lse, Elements(expected.lse), {1e-3, 1e-4}));
  }
  // Large batches may run another way.
  static void ExpectBitsOfTokensAlone(const AttentionWorld& world, const Step& few, int repeats) {
    Step many;
    std::vector<uint8_t> repeated;
    const std::vector<uint8_t> alone = RunDense(world, few).out.Bytes();
    for (int i = 0; i < repeats; ++i) {
      for (const TestToken& token : few.tokens()) many.AddDecode(token);
      repeated.insert(repeated.end(), alone.begin(), alone.end());
    }
    EXPECT_EQ(RunDense(world, many).out.Bytes(), repeated);
  }
};
class LongDenseAttentionTest : public DenseAttentionTest {};

Step LastTokensOf(const AttentionWorld& world) {
  Step step;
  for (const TestToken& token : world.LastTokens()) step.AddDecode(token);
  return step;
}

TEST_P(DenseAttentionTest, DecodeTokens) {
  const AttentionWorld world(GetParam(), {1, 31, 32, 33, 63, 64, 65, 500, 1025, 2100});
  Step step;
  for (const TestToken& token : world.LastTokens()) {
    step.AddDecode(token);
    if (token.sequence == 3) step.AddDecode({0, -1});
  }
  Check(world, step);
}

TEST_P(DenseAttentionTest, ABatchHasTheBitsOfItsTokensAlone) {
  const AttentionWorld world(GetParam(), {1, 65, 1100, 2100});
  const Step few = LastTokensOf(world);
  ExpectBitsOfTokensAlone(world, few, 9);
  Check(world, few);
}

TEST_P(DenseAttentionTest, DecodeTokensAndTiles) {
  const AttentionWorld world(GetParam(), {700, 130, 65});
  Step step;
  step.AddDecode({2, 64});
  step.AddDecode({0, -1});
  step.AddChunk(0, 333, 700);
  step.AddChunk(1, 0, 130);
  Check(world, step);
}

// The GPU reads a token's pages through rings, and their numbers 32 pages of a share at a time:
// 5,000 tokens wrap the rings, the others read on once and twice.
TEST_P(LongDenseAttentionTest, ABatchHasTheBitsOfItsTokensAlone) {
  const AttentionWorld world(GetParam(), {5000, 33000, 67000});
  const Step few = LastTokensOf(world);
  ExpectBitsOfTokensAlone(world, few, 22);
  // Values are means over many rows; one wrong page of 1,047 exceeds this threefold.
  const bool is_half = GetParam().activation != DType::kF32;
  Check(world, few, is_half ? Tolerance{1.5e-3, 1e-2} : StepTolerance(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Geometries, DenseAttentionTest, ::testing::ValuesIn(DenseGeometries()),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Geometries, LongDenseAttentionTest, ::testing::ValuesIn(LongGeometries()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nsa::testing
