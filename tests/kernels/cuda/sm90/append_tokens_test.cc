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

// Caches of more than 2^31 elements: what a step writes into their last pages has the bits of the
// first ones.
class LargeAppend {
 public:
  static constexpr int64_t kD = 128, kPageRows = 64, kRowsPerPage = 4;
  static constexpr int64_t kPages = (int64_t{1} << 31) / (kPageRows * kD) + 64;
  static constexpr int64_t kRowPages = (int64_t{1} << 31) / (kRowsPerPage * kD) + 64;
  static constexpr int64_t kBytes = 4 * ((int64_t{1} << 31) + 64 * kPageRows * kD) * 2;

  LargeAppend()
      : raw_{Cache(kPages, kPageRows), Cache(kPages, kPageRows), {}},
        rows_{Cache(kRowPages, kRowsPerPage), Cache(kRowPages, kRowsPerPage), {}} {}

  struct Written {
    Tensor k{DType::kBF16, {kPageRows, kD}}, v{DType::kBF16, {kPageRows, kD}};
    Tensor row_k{DType::kBF16, {kRowsPerPage, kD}}, row_v{DType::kBF16, {kRowsPerPage, kD}};
  };
  // The token at 47 and the row of its span, behind tokens 0 to 46, in these pages.
  Written Append(int64_t page, int64_t row_page) const {
    constexpr int64_t kLast = 47, kColumns = 3 * kD;  // one query head, K and V
    std::mt19937 random(7);
    const Tensor before = RandomTensor(DType::kBF16, {kLast, kColumns}, random);
    const Tensor now = RandomTensor(DType::kBF16, {1, kColumns}, random);
    const Tensor fc1 =
        RandomTensor(DType::kBF16, {1, 128, kPaperShape.span_tokens * kD}, random, 1.0 / 64);
    const Tensor fc2 = RandomTensor(DType::kBF16, {1, kD, 128}, random, 0.1);
    const Tensor q_before(DType::kBF16, {kLast, 1, kD}), q(DType::kBF16, {1, 1, kD});
    const Tensor inv_freq = RandomTensor(DType::kF32, {kD / 2}, random);
    const Tensor table = I32Tensor({static_cast<int32_t>(page)});
    const Tensor row_table = I32Tensor({static_cast<int32_t>(row_page)});
    const TestTokens earlier(Chunk(0, 0, kLast)), last({{0, kLast}});
    OnDevice on(DeviceType::kCuda);
    const PagedKv raw{raw_.k, raw_.v, on(table).Reshape({1, 1})};
    const auto store = [&](const TestTokens& tokens, const Tensor& packed, const Tensor& queries) {
      return StoreProjectionsArgs{
          .tokens = on(tokens.map()),
          .packed = on(packed),
          .inv_freq = on(inv_freq),
          .num_streams = 1,
          .streams = {KvStream{.k_column = kD, .v_column = 2 * kD, .kv = raw}},
          .q = on(queries)};
    };
    StoreProjections(store(earlier, before, q_before), on.stream());
    AppendArgs args{.store = store(last, now, q)};
    args.store.tokens.num_decode_tokens = 1;
    args.compress = {.shape = kPaperShape,
                     .phi = PhiKind::kMlp,
                     .rope = CmpRope::kAfter,
                     .tokens = args.store.tokens,
                     .raw = raw,
                     .rows = {rows_.k, rows_.v, on(row_table).Reshape({1, 1})},
                     .phi_k = {.fc1 = on(fc1), .fc2 = on(fc2)},
                     .phi_v = {.fc1 = on(fc1), .fc2 = on(fc2)},
                     .inv_freq = on(inv_freq)};
    const CompressExtent extent{.shape = kPaperShape,
                                .phi = PhiKind::kMlp,
                                .num_tokens = 1,
                                .num_seqs = 1,
                                .num_kv_heads = 1,
                                .d_k = kD,
                                .d_v = kD,
                                .num_hidden = 128};
    args.compress.scratch = on.Scratch(CompressRowsScratchBytes(extent, on.stream()));
    EXPECT_TRUE(cuda::CanAppendTokens(args));
    AppendTokens(args, on.stream());
    on.Fetch();
    Written written;
    Fetch(raw_.k, page, kPageRows, written.k);
    Fetch(raw_.v, page, kPageRows, written.v);
    Fetch(rows_.k, row_page, kRowsPerPage, written.row_k);
    Fetch(rows_.v, row_page, kRowsPerPage, written.row_v);
    return written;
  }

 private:
  TensorView Cache(int64_t num_pages, int64_t page_rows) {
    const int64_t num_bytes = num_pages * page_rows * kD * 2;
    return {memory_.Scratch(num_bytes).raw(), DType::kBF16, {num_pages, 1, page_rows, kD}};
  }
  static void Fetch(const TensorView& cache, int64_t page, int64_t page_rows, Tensor& out) {
    std::vector<int32_t> indices;
    for (int64_t i = 0; i < page_rows; ++i) indices.push_back(static_cast<int32_t>(i));
    const Tensor places = I32Tensor(indices);
    auto* const first = static_cast<char*>(cache.raw()) + page * page_rows * kD * 2;
    OnDevice on(DeviceType::kCuda);
    GatherRows({.x = {first, DType::kBF16, {page_rows, kD}}, .indices = on(places), .out = on(out)},
               on.stream());
    on.Fetch();
  }

  OnDevice memory_{DeviceType::kCuda};
  PagedKv raw_, rows_;
};

TEST(AppendTokensSm90Test, OffsetsAre64BitCuda) {
  if (FreeDeviceBytes(DeviceType::kCuda) < 5 * LargeAppend::kBytes / 4) {
    GTEST_SKIP() << "needs a GPU with " << 5 * LargeAppend::kBytes / 4 << " bytes of free memory";
  }
  const LargeAppend large;
  const auto low = large.Append(1, 1);
  const auto high = large.Append(LargeAppend::kPages - 2, LargeAppend::kRowPages - 2);
  const int64_t last = 47 * LargeAppend::kD;
  // Row 1 of the model is row 2 of the cache (PagedKv).
  const int64_t row = 2 * LargeAppend::kD;
  for (const auto* tensor : {&low.k, &low.v}) EXPECT_FALSE(std::isnan(tensor->At(last)));
  for (const auto* tensor : {&low.row_k, &low.row_v}) EXPECT_FALSE(std::isnan(tensor->At(row)));
  EXPECT_TRUE(IsIdentical(high.k, low.k));
  EXPECT_TRUE(IsIdentical(high.v, low.v));
  EXPECT_TRUE(IsIdentical(high.row_k, low.row_k));
  EXPECT_TRUE(IsIdentical(high.row_v, low.row_v));
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
