// For which operands the append kernel of Hopper runs. (append_tokens_test.cc compares its bits.)

#include "kernels/cuda/sm90/append_tokens.h"

#include <gtest/gtest.h>

namespace nsa::testing {
namespace {

// Operands without memory, as the 8B-class model of bench/engine has them.
struct Operands {
  DType dtype = DType::kBF16;
  int64_t num_tokens = 24, num_decode_tokens = 24, d_k = 128, d_v = 128, span_tokens = 32;
  int64_t num_hidden = 128;
  PhiKind phi = PhiKind::kMlp;
  bool stores_raw = true;

  AppendArgs Args() const {
    static char memory[8];  // addresses that differ
    const NsaShape shape{span_tokens, 16, 64, 16, 1, 2, 512};
    const auto paged = [&](int place, int64_t page_rows) {
      return PagedKv{.k = {memory + place, dtype, {9, 4, page_rows, d_k}},
                     .v = {memory + place, dtype, {9, 4, page_rows, d_v}},
                     .table = {memory, DType::kI32, {num_tokens, 4}}};
    };
    const auto phi_of = [&](int64_t d) {
      PhiWeights weights;
      if (phi == PhiKind::kLinear) weights.weight = {memory, dtype, {4, d, span_tokens * d}};
      if (phi == PhiKind::kMlp) {
        weights.fc1 = {memory, dtype, {4, num_hidden, span_tokens * d}};
        weights.fc2 = {memory, dtype, {4, d, num_hidden}};
      }
      return weights;
    };
    const TokenMap tokens{.sequence = {memory, DType::kI32, {num_tokens}},
                          .position = {memory, DType::kI32, {num_tokens}},
                          .num_decode_tokens = num_decode_tokens};
    const int64_t columns = 64 * d_k + 4 * (d_k + d_v) + 192;
    AppendArgs args{.store = {.tokens = tokens,
                              .packed = {memory, dtype, {num_tokens, columns}},
                              .num_streams = 1,
                              .q = {memory, dtype, {num_tokens, 64, d_k}}},
                    .compress = {.shape = shape,
                                 .phi = phi,
                                 .tokens = tokens,
                                 .raw = paged(stores_raw ? 1 : 2, 64),
                                 .rows = paged(3, 4),
                                 .phi_k = phi_of(d_k),
                                 .phi_v = phi_of(d_v)}};
    args.store.streams[0] = {.k_column = 64 * d_k, .v_column = 68 * d_k, .kv = paged(1, 64)};
    return args;
  }
};

TEST(AppendTokensSm90Test, RunsDecodeStepsOfSixteenBits) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const PhiKind phi : {PhiKind::kMlp, PhiKind::kLinear}) {
      for (const auto& [d_k, d_v] : {std::pair{64, 64}, {128, 128}, {192, 128}}) {
        EXPECT_TRUE(cuda::CanAppendTokens(
            Operands{.dtype = dtype, .d_k = d_k, .d_v = d_v, .phi = phi}.Args()))
            << d_k;
      }
    }
  }
  EXPECT_TRUE(cuda::CanAppendTokens(Operands{.num_hidden = 4096}.Args()));
  EXPECT_TRUE(cuda::CanAppendTokens(Operands{.num_tokens = 256, .num_decode_tokens = 256}.Args()));
}

TEST(AppendTokensSm90Test, LeavesOthersToTheTwoOperations) {
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.dtype = DType::kF32}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.phi = PhiKind::kMean}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.phi = PhiKind::kWeightedPool}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.num_decode_tokens = 23}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.num_tokens = 257, .num_decode_tokens = 257}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.d_k = 40, .d_v = 40}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.span_tokens = 16 * 24}.Args()));  // shared memory
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.stores_raw = false}.Args()));
}

}  // namespace
}  // namespace nsa::testing
