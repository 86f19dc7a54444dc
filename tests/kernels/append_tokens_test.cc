// AppendTokens: the bits of StoreProjections and CompressRows, whose own tests say what those are.

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "kernels/nsa.h"
#include "tests/kernels/geometries.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

struct AppendCase {
  Geometry geometry;
  PhiKind phi = PhiKind::kMlp;
  CmpRope rope = CmpRope::kAfter;
  bool shared_kv = false;  // one stream, whose rows are compressed
  bool has_position = true;
  int64_t num_hidden = 40;
  int64_t ring_rows = 64;  // of the streams beside the selected branch
};

struct PhiTensors {
  Tensor position, pool, matrix, fc2;

  PhiTensors(const AppendCase& c, int64_t d, std::mt19937& random) {
    const Geometry& g = c.geometry;
    const int64_t heads = g.num_kv_heads, span = g.shape.span_tokens;
    const int64_t num_units = c.phi == PhiKind::kMlp ? c.num_hidden : d;
    const double deviation = 1 / std::sqrt(static_cast<double>(span * d));
    position = RandomTensor(DType::kF32, {heads, span, d}, random);
    pool = RandomTensor(DType::kF32, {heads, span}, random);
    matrix = RandomTensor(g.activation, {heads, num_units, span * d}, random, deviation);
    fc2 = RandomTensor(g.activation, {heads, d, num_units}, random, 0.3);
  }
  PhiWeights Weights(const AppendCase& c, OnDevice& on) const {
    PhiWeights weights;
    if (c.has_position) weights.position = on(position);
    if (c.phi == PhiKind::kWeightedPool) weights.weight = on(pool);
    if (c.phi == PhiKind::kLinear) weights.weight = on(matrix);
    if (c.phi == PhiKind::kMlp) weights.fc1 = on(matrix), weights.fc2 = on(fc2);
    return weights;
  }
};

// A step's operands; two with the same seed are alike.
class AppendWorld {
 public:
  // tokens: the last of their sequences, of lengths[sequence] tokens.
  AppendWorld(const AppendCase& c, const std::vector<int64_t>& lengths,
              const std::vector<TestToken>& tokens, int64_t num_decode_tokens)
      : case_(c),
        num_decode_tokens_(num_decode_tokens),
        random_(23),
        tokens_(tokens),
        num_tokens_(static_cast<int64_t>(tokens.size())),
        phi_k_(c, c.geometry.d_k, random_),
        phi_v_(c, c.geometry.d_v, random_),
        inv_freq_(DType::kF32, {c.geometry.d_k / 2}),
        sel_(Layout(0), lengths, random_),
        win_(Layout(c.ring_rows), lengths, random_),
        raw_(Layout(c.ring_rows), lengths, random_),
        rows_(RowsLayout(), NumRows(lengths), random_),
        packed_(RandomTensor(c.geometry.activation, {num_tokens_, NumColumns()}, random_)),
        q_(c.geometry.activation, {num_tokens_, num_heads(), c.geometry.d_k}),
        gates_(DType::kF32, {num_tokens_, num_heads(), 3}) {
    for (int64_t i = 0; i < c.geometry.d_k / 2; ++i) {
      inv_freq_.Set(i, std::pow(10000.0, -2.0 * static_cast<double>(i) /
                                             static_cast<double>(c.geometry.d_k)));
    }
  }

  void Run(bool together) {
    const Geometry& g = case_.geometry;
    ThreadPool threads(2);
    OnDevice on(g.device, &threads);
    TokenMap tokens = on(tokens_.map());
    tokens.num_decode_tokens = num_decode_tokens_;
    AppendArgs args{.store = {.tokens = tokens,
                              .packed = on(packed_),
                              .inv_freq = on(inv_freq_),
                              .q_column = 0,
                              .q = on(q_),
                              .gate_logits = on(gates_)},
                    .compress = {.shape = g.shape,
                                 .phi = case_.phi,
                                 .rope = case_.rope,
                                 .tokens = tokens,
                                 .raw = on((case_.shared_kv ? sel_ : raw_).kv()),
                                 .rows = on(rows_.kv()),
                                 .phi_k = phi_k_.Weights(case_, on),
                                 .phi_v = phi_v_.Weights(case_, on),
                                 .inv_freq = on(inv_freq_)}};
    int64_t column = num_heads() * g.d_k;
    const auto add = [&](const TestCache& cache, bool rotate_k) {
      args.store.streams[args.store.num_streams++] = {.k_column = column,
                                                      .v_column = column + g.num_kv_heads * g.d_k,
                                                      .rotate_k = rotate_k,
                                                      .kv = on(cache.kv())};
      column += g.num_kv_heads * (g.d_k + g.d_v);
    };
    add(sel_, true);
    if (!case_.shared_kv) {
      add(win_, true);
      add(raw_, case_.rope == CmpRope::kBefore);
    }
    args.store.gates_column = column;
    args.compress.scratch =
        on.Scratch(CompressRowsScratchBytes({.shape = g.shape,
                                             .phi = case_.phi,
                                             .num_tokens = num_tokens_,
                                             .num_seqs = sel_.table().view().dim(0),
                                             .num_kv_heads = g.num_kv_heads,
                                             .d_k = g.d_k,
                                             .d_v = g.d_v,
                                             .num_hidden = case_.num_hidden},
                                            on.stream()));
    if (together) {
      AppendTokens(args, on.stream());
    } else {
      StoreProjections(args.store, on.stream());
      CompressRows(args.compress, on.stream());
    }
    on.Fetch();
  }

  void ExpectIdentical(const AppendWorld& other) const {
    EXPECT_TRUE(IsIdentical(q_, other.q_));
    EXPECT_TRUE(IsIdentical(gates_, other.gates_));
    for (TestCache AppendWorld::*cache :
         {&AppendWorld::sel_, &AppendWorld::win_, &AppendWorld::raw_, &AppendWorld::rows_}) {
      EXPECT_TRUE(IsIdentical((this->*cache).k(), (other.*cache).k()));
      EXPECT_TRUE(IsIdentical((this->*cache).v(), (other.*cache).v()));
    }
  }
  const Tensor& row_keys() const { return rows_.k(); }

 private:
  int64_t num_heads() const { return case_.geometry.num_kv_heads * case_.geometry.group_size; }
  int64_t NumColumns() const {
    const Geometry& g = case_.geometry;
    return num_heads() * (g.d_k + 3) + 3 * g.num_kv_heads * (g.d_k + g.d_v);
  }
  CacheLayout Layout(int64_t ring_rows) const {
    const Geometry& g = case_.geometry;
    return {.num_kv_heads = g.num_kv_heads,
            .d_k = g.d_k,
            .d_v = g.d_v,
            .page_rows = g.shape.block_tokens,
            .dtype = g.dtype,
            .ring_rows = ring_rows};
  }
  CacheLayout RowsLayout() const {
    CacheLayout layout = Layout(0);
    layout.page_rows = case_.geometry.shape.rows_per_page();
    return layout;
  }
  std::vector<int64_t> NumRows(const std::vector<int64_t>& lengths) const {
    std::vector<int64_t> num;
    for (const int64_t length : lengths) {
      num.push_back(case_.geometry.shape.NumRows(length) + case_.geometry.shape.row_offset());
    }
    return num;
  }

  AppendCase case_;
  int64_t num_decode_tokens_;
  std::mt19937 random_;
  TestTokens tokens_;
  int64_t num_tokens_;
  PhiTensors phi_k_, phi_v_;
  Tensor inv_freq_;
  TestCache sel_, win_, raw_, rows_;
  Tensor packed_, q_, gates_;
};

// Both ways; the rows that the step emits are others than before.
void ExpectSameBits(const AppendCase& c, const std::vector<int64_t>& lengths,
                    const std::vector<TestToken>& tokens, int64_t num_decode_tokens) {
  const AppendWorld before(c, lengths, tokens, num_decode_tokens);
  AppendWorld together(c, lengths, tokens, num_decode_tokens);
  AppendWorld apart(c, lengths, tokens, num_decode_tokens);
  together.Run(true);
  apart.Run(false);
  together.ExpectIdentical(apart);
  bool emits = false;
  for (const TestToken& token : tokens) {
    emits = emits || (token.position >= 0 && c.geometry.shape.CompletesSpan(token.position));
  }
  EXPECT_EQ(emits, !IsIdentical(together.row_keys(), before.row_keys()));
}

// The last token of every sequence, and padding behind them.
std::vector<TestToken> LastTokens(const std::vector<int64_t>& lengths) {
  std::vector<TestToken> tokens;
  for (size_t s = 0; s < lengths.size(); ++s) {
    tokens.push_back({static_cast<int32_t>(s), static_cast<int32_t>(lengths[s] - 1)});
  }
  tokens.push_back({0, -1});
  return tokens;
}

void ExpectSameBitsOfDecode(const AppendCase& c, const std::vector<int64_t>& lengths) {
  const std::vector<TestToken> tokens = LastTokens(lengths);
  ExpectSameBits(c, lengths, tokens, static_cast<int64_t>(tokens.size()));
}

std::vector<Geometry> Geometries() {
  std::vector<Geometry> geometries = {{"SmallPaperF32", kSmallPaperShape, 2, 2, 16, 8, DType::kF32},
                                      {"TinyBf16", kTinyShape, 1, 3, 6, 5, DType::kBF16}};
  if (BuildDevices().size() == 1) return geometries;
  const auto add = [&](const char* name, const NsaShape& shape, int64_t heads, int64_t d_k,
                       int64_t d_v, DType dtype) {
    geometries.push_back({name, shape, heads, 2, d_k, d_v, dtype, DeviceType::kCuda, dtype});
  };
  add("PaperD128Bf16Cuda", kPaperShape, 2, 128, 128, DType::kBF16);
  add("PaperD192x128F16Cuda", kPaperShape, 1, 192, 128, DType::kF16);
  add("SmallPaperD64Bf16Cuda", kSmallPaperShape, 2, 64, 64, DType::kBF16);
  add("UnpooledStrideD64Bf16Cuda", kUnpooledStrideShape, 1, 64, 64, DType::kBF16);
  add("SmallPaperD48x24Bf16Cuda", kSmallPaperShape, 1, 48, 24, DType::kBF16);  // no fast kernel
  add("SmallPaperD64F32Cuda", kSmallPaperShape, 1, 64, 64, DType::kF32);       // likewise
  return geometries;
}

using AppendParam = std::tuple<Geometry, PhiKind, CmpRope>;
class AppendTokensTest : public ::testing::TestWithParam<AppendParam> {
 protected:
  void SetUp() override {
    if (!HasDevice(std::get<0>(GetParam()).device)) GTEST_SKIP() << "this machine has no GPU";
  }
  AppendCase Case() const {
    const auto& [geometry, phi, rope] = GetParam();
    return {.geometry = geometry, .phi = phi, .rope = rope};
  }
};

TEST_P(AppendTokensTest, HasTheBitsOfItsTwoOperations) {
  const AppendCase c = Case();
  const NsaShape& shape = c.geometry.shape;
  const int64_t span = shape.span_tokens, stride = shape.span_stride;
  // No span, the first one, none, the second one; far behind, where rings have wrapped.
  ExpectSameBitsOfDecode(
      c, {1, span - 1, span, span + 1, span + stride, span + 9 * stride, span + 9 * stride + 1});
  ExpectSameBitsOfDecode(c, {span + 4 * stride});
  ExpectSameBitsOfDecode(c, {span + 4 * stride + 1});
}

std::string CaseName(const ::testing::TestParamInfo<AppendParam>& info) {
  constexpr const char* kPhi[] = {"Mean", "WeightedPool", "Linear", "Mlp"};
  constexpr const char* kRope[] = {"Before", "After", "None"};
  const auto& [geometry, phi, rope] = info.param;
  return geometry.name + kPhi[static_cast<int>(phi)] + kRope[static_cast<int>(rope)];
}

INSTANTIATE_TEST_SUITE_P(
    Cases, AppendTokensTest,
    ::testing::Combine(::testing::ValuesIn(Geometries()),
                       ::testing::Values(PhiKind::kMean, PhiKind::kWeightedPool, PhiKind::kLinear,
                                         PhiKind::kMlp),
                       ::testing::Values(CmpRope::kBefore, CmpRope::kAfter, CmpRope::kNone)),
    CaseName);

class AppendTokensEdgeTest : public DeviceTest {
 protected:
  AppendCase Case() const {
    const DType dtype = GetParam() == DeviceType::kCpu ? DType::kF32 : DType::kBF16;
    return {.geometry = {"Edge", kSmallPaperShape, 1, 2, 64, 64, dtype, GetParam(), dtype}};
  }
};
NSA_INSTANTIATE_ON_DEVICES(AppendTokensEdgeTest);

// Rows of one group and one more, of all groups that are emitted at once, of several in turn.
TEST_P(AppendTokensEdgeTest, AnyNumberOfRows) {
  const AppendCase c = Case();
  const NsaShape& shape = c.geometry.shape;
  for (const int64_t num_rows : {1, 2, 12, 13, 36, 37, 80}) {
    std::vector<int64_t> lengths;
    for (int64_t i = 0; i < num_rows; ++i) {
      lengths.push_back(shape.span_tokens + i % 5 * shape.span_stride);
      if (i % 3 == 0) lengths.push_back(shape.span_tokens + 5);  // between them, one without
    }
    ExpectSameBitsOfDecode(c, lengths);
  }
}

// More tokens than one launch of the fast kernel takes.
TEST_P(AppendTokensEdgeTest, ManyTokens) {
  const AppendCase c = Case();
  for (const size_t num_tokens : {256, 257}) {
    std::vector<int64_t> lengths(num_tokens - 1);  // and padding
    for (size_t i = 0; i < lengths.size(); ++i) lengths[i] = 20 + static_cast<int64_t>(i) % 40;
    ExpectSameBitsOfDecode(c, lengths);
  }
}

TEST_P(AppendTokensEdgeTest, ManyHiddenUnitsOneStreamNoPosition) {
  for (const int64_t num_hidden : {1, 16, 17, 128, 129, 300}) {
    for (const bool shared_kv : {false, true}) {
      AppendCase c = Case();
      c.num_hidden = num_hidden;
      c.shared_kv = shared_kv;
      c.has_position = num_hidden % 2 == 0;
      if (shared_kv) c.rope = CmpRope::kBefore;
      ExpectSameBitsOfDecode(c, {32, 33, 48});
    }
  }
}

// A ring that has no more rows than a span.
TEST_P(AppendTokensEdgeTest, ShortestRing) {
  AppendCase c = Case();
  c.ring_rows = c.geometry.shape.span_tokens;
  ExpectSameBitsOfDecode(c, {32, 47, 48, 64, 96});
}

// A chunk's tokens complete spans with each other.
TEST_P(AppendTokensEdgeTest, StepsWithChunks) {
  AppendCase c = Case();
  c.ring_rows = 128;
  std::vector<TestToken> tokens = {{0, 47}};
  for (const TestToken& token : Chunk(1, 10, 70)) tokens.push_back(token);
  ExpectSameBits(c, {48, 70}, tokens, 1);
}

TEST(AppendTokensDeathTest, RawRowsAreStoredByTheStep) {
  const AppendCase c{.geometry = {"F32", kTinyShape, 1, 1, 4, 4, DType::kF32}};
  std::mt19937 random(1);
  const TestTokens tokens({{0, 7}});
  const TestCache sel({.d_k = 4, .d_v = 4, .page_rows = 16}, {8}, random);
  const TestCache other({.d_k = 4, .d_v = 4, .page_rows = 16}, {8}, random);
  const TestCache rows({.d_k = 4, .d_v = 4, .page_rows = kTinyShape.rows_per_page()}, {2}, random);
  const Tensor packed = RandomTensor(DType::kF32, {1, 15}, random);
  Tensor inv_freq(DType::kF32, {2}), q(DType::kF32, {1, 1, 4}), gates(DType::kF32, {1, 1, 3});
  inv_freq.Fill(1);
  OnDevice on(DeviceType::kCpu);
  AppendArgs args{
      .store = {.tokens = tokens.map(),
                .packed = packed,
                .inv_freq = inv_freq,
                .gates_column = 12,
                .num_streams = 1,
                .streams = {KvStream{.k_column = 4, .v_column = 8, .kv = sel.kv()}},
                .q = q,
                .gate_logits = gates},
      .compress = {
          .shape = c.geometry.shape, .tokens = tokens.map(), .raw = other.kv(), .rows = rows.kv()}};
  EXPECT_DEATH(AppendTokens(args, on.stream()), "raw rows that the step does not store");
  args.compress.raw = sel.kv();
  AppendTokens(args, on.stream());
}

}  // namespace
}  // namespace nsa::testing
