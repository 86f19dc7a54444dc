// The append kernel of Hopper: for which operands it runs, and that it waits for what it reads.
// (append_tokens_test.cc compares its bits, of the same operands.)

#include "kernels/cuda/sm90/append_tokens.h"

#include <gtest/gtest.h>

#include "kernels/cuda/context.h"
#include "kernels/transformer.h"
#include "tests/kernels/append_world.h"

namespace nsa::testing {
namespace {

constexpr int kHopper = 90;

// Operands without memory, as the 8B-class model of bench/engine has them.
struct Operands {
  DType dtype = DType::kBF16;
  int64_t num_tokens = 24, num_decode_tokens = 24, d_k = 128, d_v = 128, span_tokens = 32;
  int64_t num_hidden = 128;
  PhiKind phi = PhiKind::kMlp;
  int64_t num_spare_columns = 0;

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
    const int64_t columns = 64 * d_k + 4 * (d_k + d_v) + 192 + num_spare_columns;
    AppendArgs args{.store = {.tokens = tokens,
                              .packed = {memory, dtype, {num_tokens, columns}},
                              .num_streams = 1,
                              .q = {memory, dtype, {num_tokens, 64, d_k}}},
                    .compress = {.shape = shape,
                                 .phi = phi,
                                 .tokens = tokens,
                                 .raw = paged(1, 64),
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

// So that append_tokens_test.cc does not compare the two operations with themselves.
TEST(AppendTokensSm90Test, RunsTheGeometriesWhoseBitsAreCompared) {
  ThreadPool threads(1);
  for (const Geometry& geometry : FastAppendGeometries()) {
    for (const PhiKind phi : {PhiKind::kMlp, PhiKind::kLinear}) {
      for (const bool shared_kv : {false, true}) {
        AppendWorld world({.geometry = geometry, .phi = phi, .shared_kv = shared_kv}, {40, 64},
                          LastTokens({40, 64}), 3);
        OnDevice on(DeviceType::kCpu, &threads);  // views of the host alone
        EXPECT_TRUE(cuda::CanAppendTokens(world.Args(on))) << geometry.name;
      }
    }
  }
}

TEST(AppendTokensSm90Test, LeavesOthersToTheTwoOperations) {
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.dtype = DType::kF32}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.phi = PhiKind::kMean}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.phi = PhiKind::kWeightedPool}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.num_decode_tokens = 23}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.num_tokens = 257, .num_decode_tokens = 257}.Args()));
  // 8 blocks cannot have the same share of both halves; whole steps of a quarter's inputs.
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.d_k = 72, .d_v = 72, .span_tokens = 128}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.d_k = 48, .d_v = 48}.Args()));
  EXPECT_FALSE(cuda::CanAppendTokens(Operands{.num_spare_columns = 4}.Args()));
  EXPECT_TRUE(cuda::CanAppendTokens(Operands{.num_spare_columns = 8}.Args()));
  AppendArgs args = Operands{}.Args();
  args.compress.phi_v = Operands{.dtype = DType::kF16}.Args().compress.phi_v;
  EXPECT_FALSE(cuda::CanAppendTokens(args));
  args = Operands{}.Args();
  args.store.streams[0].kv = Operands{.dtype = DType::kF16}.Args().store.streams[0].kv;
  EXPECT_FALSE(cuda::CanAppendTokens(args));
}

struct BitsCase {
  DType dtype;
  int64_t d_k, d_v;
};
class AppendTokensBitsTest : public ::testing::TestWithParam<BitsCase> {};

// The projections come from a product right in front, which lets the kernel start early; what they
// were before is NaN. Steps that complete no span, one and many.
TEST_P(AppendTokensBitsTest, WaitsForTheProjections) {
  if (!HasDevice(DeviceType::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  const DType dtype = GetParam().dtype;
  const int64_t d_k = GetParam().d_k, d_v = GetParam().d_v;
  const AppendCase c{
      .geometry = {"Late", kPaperShape, 2, 8, d_k, d_v, dtype, DeviceType::kCuda, dtype},
      .num_hidden_k = 128,
      .num_hidden_v = 128};
  for (const std::vector<int64_t>& lengths :
       {std::vector<int64_t>{33}, {48}, std::vector<int64_t>(40, 64)}) {
    const std::vector<TestToken> tokens = LastTokens(lengths);
    const auto num_tokens = static_cast<int64_t>(tokens.size());
    AppendWorld together(c, lengths, tokens, num_tokens), apart(c, lengths, tokens, num_tokens);
    std::mt19937 random(3);
    constexpr int64_t kInputs = 4096;
    const int64_t num_columns = together.packed().view().dim(1);
    const Tensor x = RandomTensor(dtype, {num_tokens, kInputs}, random);
    const Tensor matrix = RandomTensor(dtype, {num_columns, kInputs}, random, 1.0 / 64);
    OnDevice on(DeviceType::kCuda);
    if (on.stream().cuda->compute_capability() != kHopper) GTEST_SKIP() << "this GPU is no Hopper";
    const auto project = [&](AppendWorld& world) {
      AppendArgs args = world.Args(on);
      args.store.packed = {
          on.Scratch(num_tokens * num_columns * 2).raw(), dtype, {num_tokens, num_columns}};
      Linear({.x = on(x), .weight = {num_columns, kInputs, on(matrix)}, .out = args.store.packed},
             on.stream());
      return args;
    };
    const AppendArgs args = project(together);
    ASSERT_TRUE(cuda::CanAppendTokens(args));
    AppendTokens(args, on.stream());
    const AppendArgs same = project(apart);
    StoreProjections(same.store, on.stream());
    CompressRows(same.compress, on.stream());
    on.Fetch();
    together.ExpectIdentical(apart);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, AppendTokensBitsTest,
                         ::testing::Values(BitsCase{DType::kBF16, 64, 64},
                                           BitsCase{DType::kBF16, 128, 128},
                                           BitsCase{DType::kF16, 192, 128}),
                         [](const auto& info) {
                           return std::string(DTypeName(info.param.dtype)) + "D" +
                                  std::to_string(info.param.d_k) + "Cuda";
                         });

}  // namespace
}  // namespace nsa::testing
