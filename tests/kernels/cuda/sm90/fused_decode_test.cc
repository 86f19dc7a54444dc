// The decode kernel of Hopper where the blocks' sums do not fit into shared memory.
// (sparse_attention_test.cc has short contexts and small batches.)

#include "kernels/cuda/sm90/fused_decode.h"

#include <gtest/gtest.h>

#include "kernels/cuda/context.h"
#include "tests/kernels/attention_world.h"
#include "tests/kernels/geometries.h"
#include "tests/kernels/sparse_step.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

constexpr int kHopper = 90;
// Llama-NSA's blocks, and the paper's number of them.
constexpr NsaShape kShortBlocksShape{32, 32, 32, 16, 0, 1, 512};
constexpr NsaShape kUnpooledShape{64, 64, 64, 16, 1, 2, 512};

// So many tokens, and pages of their sequence, that the blocks of the grid have several tiles of
// sums more than they have room for, and all of them much.
struct Case {
  Geometry geometry;
  int64_t num_tokens, num_pages;
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.geometry.name; }

std::vector<Case> Cases() {
  const auto of = [](const char* name, const NsaShape& shape, int64_t group_size, int64_t d_k,
                     int64_t d_v, DType dtype) {
    return Geometry{name, shape, 1, group_size, d_k, d_v, dtype, DeviceType::kCuda, dtype};
  };
  constexpr DType kBF16 = DType::kBF16, kF16 = DType::kF16;
  return {{of("PaperG16D128Bf16", kPaperShape, 16, 128, 128, kBF16), 256, 1024},
          {of("PaperG4D192x128F16", kPaperShape, 4, 192, 128, kF16), 256, 1536},
          {of("PaperG16D64F16", kPaperShape, 16, 64, 64, kF16), 64, 4096},
          {of("UnpooledG16D128F16", kUnpooledShape, 16, 128, 128, kF16), 256, 1024},
          {of("ShortBlocksG5D128Bf16", kShortBlocksShape, 5, 128, 128, kBF16), 256, 1024}};
}

class CudaFusedDecodeTest : public ::testing::TestWithParam<Case> {};

// A large batch of tokens at the end of one sequence has blocks with more tiles than sums in shared
// memory, and discards the others' once they are read; a token alone keeps all of its sums there.
TEST_P(CudaFusedDecodeTest, SumsInGlobalMemory) {
  if (!HasDevice(DeviceType::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  if (OnDevice(DeviceType::kCuda).stream().cuda->compute_capability() != kHopper) {
    GTEST_SKIP() << "this GPU is no Hopper";
  }
  const auto& [geometry, num_tokens, num_pages] = GetParam();
  const int64_t num_positions = num_pages * geometry.shape.block_tokens;
  const AttentionWorld world(geometry, {num_positions});
  Step step;
  for (int64_t i = 0; i < num_tokens; ++i) {
    step.AddDecode({0, static_cast<int32_t>(num_positions - 1 - 7 * i)});
  }
  const Outputs together =
      RunStep(world, step, nullptr, [](const auto& /*on*/, const SparseAttentionArgs& args) {
        ASSERT_TRUE(cuda::CanFuseDecode(args));
        const cuda::FusedDecodePlan plan = cuda::PlanFusedDecode(args);
        EXPECT_GE(plan.num_tiles, plan.num_shared_tiles + 4);
        EXPECT_TRUE(plan.discards_sums);
      });
  const Outputs again = RunStep(world, step, nullptr);
  EXPECT_TRUE(IsIdentical(again.out, together.out));
  EXPECT_TRUE(IsIdentical(again.blocks, together.blocks));

  const std::vector<int64_t> some = {0, 1, 30, num_tokens - 1};
  Step checked;
  for (int64_t token : some) {
    checked.AddDecode(step.tokens()[static_cast<size_t>(token)]);
    Step alone;
    alone.AddDecode(checked.tokens().back());
    const Outputs single =
        RunStep(world, alone, nullptr, [](const auto& /*on*/, const SparseAttentionArgs& args) {
          const cuda::FusedDecodePlan plan = cuda::PlanFusedDecode(args);
          EXPECT_EQ(plan.num_tiles, plan.num_shared_tiles);
          EXPECT_FALSE(plan.discards_sums);
        });
    const Outputs batched = together.Of({token});
    EXPECT_TRUE(IsIdentical(single.blocks, batched.blocks)) << "token " << token;
    EXPECT_TRUE(IsIdentical(single.out, batched.out)) << "token " << token;
  }
  const Outputs outputs = together.Of(some);
  CheckBlocks(world, checked, outputs.blocks);
  CheckOutputs(world, checked, outputs);
}

INSTANTIATE_TEST_SUITE_P(Cases, CudaFusedDecodeTest, ::testing::ValuesIn(Cases()),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace nsa::testing
