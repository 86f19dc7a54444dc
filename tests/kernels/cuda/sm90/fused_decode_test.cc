// The decode kernel of Hopper in all its ways, over a context whose blocks have more sums than, in
// most ways of few thread blocks, shared memory has room for. (sparse_attention_test.cc has other
// contexts, in the way that the launcher takes.)

#include "kernels/cuda/sm90/fused_decode.h"

#include <gtest/gtest.h>

#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "kernels/cuda/context.h"
#include "tests/kernels/attention_world.h"
#include "tests/kernels/geometries.h"
#include "tests/kernels/sparse_step.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

constexpr int kHopper = 90;
constexpr int64_t kNumPages = 1024;
// Blocks that are a span and a stride long: of the paper's length and of half of it.
constexpr NsaShape kWholeBlocksShape{64, 64, 64, 16, 1, 2, 512};
constexpr NsaShape kHalfBlocksShape{32, 32, 32, 16, 0, 1, 512};

std::vector<Geometry> Geometries() {
  const auto of = [](const char* name, const NsaShape& shape, int64_t group_size, int64_t d_k,
                     int64_t d_v, DType dtype) {
    return Geometry{name, shape, 1, group_size, d_k, d_v, dtype, DeviceType::kCuda, dtype};
  };
  constexpr DType kBF16 = DType::kBF16, kF16 = DType::kF16;
  return {of("PaperG16D128Bf16", kPaperShape, 16, 128, 128, kBF16),
          of("PaperG4D192x128F16", kPaperShape, 4, 192, 128, kF16),
          of("PaperG16D64F16", kPaperShape, 16, 64, 64, kF16),
          of("WholeBlocksG16D128F16", kWholeBlocksShape, 16, 128, 128, kF16),
          of("HalfBlocksG5D128Bf16", kHalfBlocksShape, 5, 128, 128, kBF16)};
}

class CudaFusedDecodeTest : public ::testing::TestWithParam<Geometry> {
 protected:
  void SetUp() override {
    if (!HasDevice(DeviceType::kCuda)) GTEST_SKIP() << "this machine has no GPU";
    if (OnDevice(DeviceType::kCuda).stream().cuda->compute_capability() != kHopper) {
      GTEST_SKIP() << "this GPU is no Hopper";
    }
  }
};

// Tokens at the end of one sequence, and padding.
Step StepOf(int64_t num_tokens) {
  Step step;
  const int64_t num_positions = kNumPages * CudaFusedDecodeTest::GetParam().shape.block_tokens;
  for (int64_t i = 1; i < num_tokens; ++i) {
    step.AddDecode({0, static_cast<int32_t>(num_positions - 7 * i)});
  }
  step.AddDecode({0, -1});
  return step;
}

struct WayRun {
  cuda::FusedDecodePlan plan;
  Outputs outputs;  // as made if the plan has no blocks
};
WayRun RunWay(const AttentionWorld& world, const Step& step, int way) {
  cuda::FusedDecodePlan plan{};
  Outputs outputs = RunStep(world, step, nullptr, [&](OnDevice& on, SparseAttentionArgs args) {
    ASSERT_TRUE(cuda::CanFuseDecode(args));
    plan = cuda::PlanFusedDecode(args, way);
    if (plan.num_ranks == 0) return;
    args.scratch = on.Scratch(
        cuda::FusedDecodeScratchBytes(args.shape, step.num_tokens(), 1, args.rows.table.dim(1)));
    cuda::LaunchFusedDecode(args, on.stream().cuda->stream(), way);
  });
  return {plan, std::move(outputs)};
}

void ExpectSame(const Outputs& actual, const Outputs& expected, int way) {
  EXPECT_TRUE(IsIdentical(actual.out, expected.out)) << "way " << way;
  EXPECT_TRUE(IsIdentical(actual.blocks, expected.blocks)) << "way " << way;
}

TEST_P(CudaFusedDecodeTest, AllWaysGiveTheSameBits) {
  const AttentionWorld world(GetParam(), {kNumPages * GetParam().shape.block_tokens});
  // Of so many tokens clusters of one block, and some of two, have sums to discard; larger ones are
  // run with a few tokens only.
  const Step many = StepOf(120), few = StepOf(8);
  const Outputs expected = RunWay(world, few, cuda::kFastestWay).outputs;
  CheckBlocks(world, few, expected.blocks);
  CheckOutputs(world, few, expected);
  std::vector<int64_t> in_both(static_cast<size_t>(few.num_tokens() - 1));
  std::iota(in_both.begin(), in_both.end(), 0);
  const Outputs expected_of_both = expected.Pick(in_both);

  std::set<int> sizes;
  int num_discarding = 0;
  std::optional<Outputs> of_many;
  for (int way = 0; way < cuda::kNumFusedDecodeWays; ++way) {
    const WayRun run = RunWay(world, few, way);
    if (run.plan.num_ranks == 0) continue;
    sizes.insert(run.plan.num_ranks);
    EXPECT_FALSE(run.plan.discards_sums);
    ExpectSame(run.outputs, expected, way);
    if (run.plan.num_ranks > 2) continue;
    WayRun run_of_many = RunWay(world, many, way);
    num_discarding += run_of_many.plan.discards_sums ? 1 : 0;
    ExpectSame(run_of_many.outputs.Pick(in_both), expected_of_both, way);
    if (of_many.has_value()) {
      ExpectSame(run_of_many.outputs, *of_many, way);
    } else {
      of_many.emplace(std::move(run_of_many.outputs));
    }
  }
  EXPECT_EQ(sizes, (std::set<int>{1, 2, 4, 8, 16}));
  EXPECT_GT(num_discarding, 0);
}

INSTANTIATE_TEST_SUITE_P(Geometries, CudaFusedDecodeTest, ::testing::ValuesIn(Geometries()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nsa::testing
