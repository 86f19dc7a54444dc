// The kernels on every SIMD target of the machine: each agrees with the reference, and those with
// fused multiply-add agree with each other bit by bit, whatever their vector width.

#include <gtest/gtest.h>

#include "hwy/targets.h"
#include "kernels/transformer.h"
#include "tests/kernels/attention_world.h"
#include "tests/kernels/geometries.h"
#include "tests/support/compare.h"

namespace nsa::testing {
namespace {

// Runs with one target; the machine's own choice is back when it ends.
class ForcedTarget {
 public:
  explicit ForcedTarget(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().DeInit();
  }
  ~ForcedTarget() {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
  }
  ForcedTarget(const ForcedTarget&) = delete;
  ForcedTarget& operator=(const ForcedTarget&) = delete;
};

// The targets that kernels/CMakeLists.txt leaves and the machine has.
std::vector<int64_t> Targets() {
  std::vector<int64_t> targets;
  for (int64_t target : {HWY_AVX3, HWY_AVX2}) {
    if ((hwy::SupportedTargets() & target) != 0) targets.push_back(target);
  }
  return targets;
}

std::vector<TestToken> SomeTokens(const AttentionWorld& world) {
  std::vector<TestToken> tokens;
  for (const TestToken& token : world.AllTokens()) {
    if (token.position % 7 == 0) tokens.push_back(token);
  }
  return tokens;
}

Tensor Select(const AttentionWorld& world, const std::vector<TestToken>& tokens) {
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  const Geometry& g = world.geometry();
  const TestTokens map(tokens);
  const Tensor q = world.Queries(tokens), scratch(DType::kF32, {1, 100});
  const Tensor lse = world.Run(Branch::kCompressed, tokens).lse;
  Tensor blocks(DType::kI32, {num_tokens, g.num_kv_heads, g.shape.num_selected});
  SelectBlocks(
      {g.shape, map.map(), q, world.rows_cache().kv(), lse, blocks, scratch, world.scale()}, {});
  return blocks;
}

Tensor RunLinear(DType dtype) {
  std::mt19937 random(3);
  const Tensor x = RandomTensor(DType::kF32, {29, 600}, random);
  const Tensor matrix = RandomTensor(DType::kF32, {77, 600}, random);
  const Tensor storage(dtype, {PackedWeightBytes(77, 600, dtype) / DTypeBytes(dtype)});
  PackedWeight packed{77, 600, storage.view()};
  PackWeight(matrix, 0, packed);
  Tensor out(DType::kF32, {29, 77});
  Linear({.x = x, .weight = packed, .out = out}, {});
  return out;
}

Tensor RunSwiGlu() {
  std::mt19937 random(3);
  const Tensor gate_up = RandomTensor(DType::kF32, {3, 2 * 77}, random, 5);
  Tensor out(DType::kF32, {3, 77});
  SwiGlu({.gate_up = gate_up, .out = out}, {});
  return out;
}

Tensor RunPhi() {
  std::mt19937 random(3);
  const NsaShape shape = kTinyShape;
  const CacheLayout layout{.d_k = 9, .d_v = 5, .page_rows = shape.block_tokens};
  CacheLayout rows_layout = layout;
  rows_layout.page_rows = shape.rows_per_page();
  const TestCache raw(layout, {8}, random), rows(rows_layout, {2}, random);
  const Tensor weight_k = RandomTensor(DType::kF32, {1, 9, 8 * 9}, random);
  const Tensor weight_v = RandomTensor(DType::kF32, {1, 5, 8 * 5}, random);
  const TestTokens map({{0, 7}});
  CompressRows({.shape = shape,
                .phi = PhiKind::kLinear,
                .tokens = map.map(),
                .raw = raw.kv(),
                .rows = rows.kv(),
                .phi_k = {.weight = weight_k},
                .phi_v = {.weight = weight_v}},
               {});
  Tensor out(DType::kF32, {9});
  for (int64_t c = 0; c < 9; ++c) out.Set(c, rows.K(0, 1, 0, c));
  return out;
}

TEST(SimdTargetTest, WidthsGiveTheSameBits) {
  const AttentionWorld world({"Bits", kSmallPaperShape, 1, 11, 40, 44, DType::kBF16}, {300});
  const std::vector<TestToken> tokens = SomeTokens(world);
  std::vector<std::vector<Tensor>> results;
  for (int64_t target : Targets()) {
    const ForcedTarget forced(target);
    std::vector<Tensor>& outputs = results.emplace_back();
    for (Branch branch : kBranches) {
      AttentionOutputs attention = world.Run(branch, tokens);
      outputs.push_back(std::move(attention.out));
      outputs.push_back(std::move(attention.lse));
    }
    outputs.push_back(Select(world, tokens));
    outputs.push_back(RunLinear(DType::kF32));
    outputs.push_back(RunLinear(DType::kBF16));
    outputs.push_back(RunSwiGlu());
    outputs.push_back(RunPhi());
  }
  if (results.size() < 2) GTEST_SKIP() << "the machine has one target with fused multiply-add";
  for (size_t i = 0; i < results[0].size(); ++i) {
    EXPECT_TRUE(IsIdentical(results[1][i], results[0][i])) << "output " << i;
  }
}

class ForcedTargetTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(ForcedTargetTest, AttentionMatchesReference) {
  const bool is_supported = (hwy::SupportedTargets() & GetParam()) != 0;
  if (!is_supported && GetParam() != HWY_SCALAR) GTEST_SKIP() << hwy::TargetName(GetParam());
  const ForcedTarget forced(GetParam());
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const AttentionWorld world({"Target", kTinyShape, 2, 3, 21, 35, dtype}, {150, 33});
    const std::vector<TestToken> tokens = SomeTokens(world);
    for (Branch branch : kBranches) world.Check(branch, tokens, world.Run(branch, tokens));
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, ForcedTargetTest,
                         ::testing::Values(HWY_AVX3, HWY_AVX2, HWY_SCALAR),
                         [](const auto& info) { return std::string(hwy::TargetName(info.param)); });

}  // namespace
}  // namespace nsa::testing
