// The decode kernel of Hopper where the blocks' sums do not fit into shared memory.
// (sparse_attention_test.cc compares it with the CPU, bench/kernels/gpu/decode_bench.py at lengths
// like these.)

#include "kernels/cuda/sm90/fused_decode.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kernels/cuda/context.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

constexpr int kHopper = 90;
constexpr NsaShape kShape{32, 16, 64, 16, 1, 2, 512};
constexpr int64_t kNumTokens = 256, kGroup = 16, kD = 128;
constexpr int64_t kNumPages = 640;  // of every sequence, all the same

// Sequences that share all pages and differ in their last position.
class CudaFusedDecodeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!HasDevice(DeviceType::kCuda)) GTEST_SKIP() << "this machine has no GPU";
    for (int64_t i = 0; i < kNumTokens; ++i) {
      int32_t* const pages = table_.data<int32_t>() + i * kNumPages;
      std::iota(pages, pages + kNumPages, 0);
      sequence_.Set(i, static_cast<double>(i));
      position_.Set(i, static_cast<double>(kNumPages * kShape.block_tokens - 1 - 7 * i));
    }
  }

  struct Outputs {
    explicit Outputs(int64_t count)
        : out(DType::kBF16, {count, kGroup, kD}),
          blocks(DType::kI32, {count, 1, kShape.num_selected}) {}
    Tensor out, blocks;
  };

  // Enqueues tokens [first, first + count).
  void Run(OnDevice& on, int64_t first, int64_t count, const TensorView& scratch,
           Outputs& outputs) {
    const auto cut = [&](const Tensor& all) { return on(all).Slice(first, count); };
    const TensorView table = on(table_).Reshape({kNumTokens, kNumPages});
    const PagedKv raw{on(k_), on(v_), table};
    TokenMap tokens{.sequence = cut(sequence_), .position = cut(position_)};
    tokens.num_decode_tokens = count;
    const SparseAttentionArgs args{.shape = kShape,
                                   .tokens = tokens,
                                   .q = cut(q_),
                                   .gate_logits = cut(gates_),
                                   .rows = {on(row_k_), on(row_v_), table},
                                   .sel = raw,
                                   .win = raw,
                                   .out = on(outputs.out),
                                   .blocks = on(outputs.blocks),
                                   .scratch = scratch,
                                   .softmax_scale = 0.2F};
    ASSERT_TRUE(cuda::CanFuseDecode(args));
    SparseAttention(args, on.stream());
  }

  std::mt19937 random_{3};
  const int64_t page_rows_ = kShape.block_tokens, rows_per_page_ = kShape.rows_per_page();
  const Tensor k_ = RandomTensor(DType::kBF16, {kNumPages, 1, page_rows_, kD}, random_);
  const Tensor v_ = RandomTensor(DType::kBF16, {kNumPages, 1, page_rows_, kD}, random_);
  const Tensor row_k_ = RandomTensor(DType::kBF16, {kNumPages, 1, rows_per_page_, kD}, random_);
  const Tensor row_v_ = RandomTensor(DType::kBF16, {kNumPages, 1, rows_per_page_, kD}, random_);
  const Tensor q_ = RandomTensor(DType::kBF16, {kNumTokens, kGroup, kD}, random_);
  const Tensor gates_ = RandomTensor(DType::kF32, {kNumTokens, kGroup, 3}, random_);
  Tensor table_{DType::kI32, {kNumTokens * kNumPages}};
  Tensor sequence_{DType::kI32, {kNumTokens}}, position_{DType::kI32, {kNumTokens}};
};

// A large batch has blocks with more tiles than sums in shared memory, and forgets what it has
// read; a token alone keeps all of its sums there.
TEST_F(CudaFusedDecodeTest, SumsInGlobalMemoryGiveTheSameBits) {
  OnDevice on(DeviceType::kCuda);
  if (on.stream().cuda->compute_capability() != kHopper) GTEST_SKIP() << "this GPU is no Hopper";
  const TensorView scratch =
      on.Scratch(cuda::FusedDecodeScratchBytes(kShape, kNumTokens, 1, kNumPages));
  Outputs together(kNumTokens), again(kNumTokens);
  Run(on, 0, kNumTokens, scratch, together);
  Run(on, 0, kNumTokens, scratch, again);
  const std::vector<int64_t> tokens = {0, 1, 100, kNumTokens - 1};
  std::vector<Outputs> alone;
  for (size_t i = 0; i < tokens.size(); ++i) alone.emplace_back(1);
  for (size_t i = 0; i < tokens.size(); ++i) Run(on, tokens[i], 1, scratch, alone[i]);
  on.Fetch();
  EXPECT_TRUE(IsIdentical(again.out, together.out));
  EXPECT_TRUE(IsIdentical(again.blocks, together.blocks));
  for (size_t i = 0; i < tokens.size(); ++i) {
    ASSERT_FALSE(std::isnan(alone[i].out.At(0)));
    for (int64_t j = 0; j < kGroup * kD; ++j) {
      ASSERT_EQ(together.out.At(tokens[i] * kGroup * kD + j), alone[i].out.At(j))
          << "token " << tokens[i] << ", element " << j;
    }
    for (int64_t j = 0; j < kShape.num_selected; ++j) {
      ASSERT_EQ(together.blocks.At(tokens[i] * kShape.num_selected + j), alone[i].blocks.At(j));
    }
  }
}

}  // namespace
}  // namespace nsa::testing
