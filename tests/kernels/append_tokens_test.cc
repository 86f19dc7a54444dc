// AppendTokens: the bits of StoreProjections and CompressRows, whose own tests say what those are.

#include <gtest/gtest.h>

#include <tuple>

#include "kernels/nsa.h"
#include "tests/kernels/append_world.h"

namespace nsa::testing {
namespace {

// Both ways; the rows that the step emits are others than before.
void ExpectSameBits(const AppendCase& c, const std::vector<int64_t>& lengths,
                    const std::vector<TestToken>& tokens, int64_t num_decode_tokens) {
  const AppendWorld before(c, lengths, tokens, num_decode_tokens);
  AppendWorld together(c, lengths, tokens, num_decode_tokens);
  AppendWorld apart(c, lengths, tokens, num_decode_tokens);
  ThreadPool threads(2);
  OnDevice on(c.geometry.device, &threads);
  AppendTokens(together.Args(on), on.stream());
  const AppendArgs args = apart.Args(on);
  StoreProjections(args.store, on.stream());
  CompressRows(args.compress, on.stream());
  on.Fetch();
  together.ExpectIdentical(apart);
  bool emits = false;
  for (const TestToken& token : tokens) {
    emits = emits || (token.position >= 0 && c.geometry.shape.CompletesSpan(token.position));
  }
  EXPECT_EQ(emits, !IsIdentical(together.row_keys(), before.row_keys()));
}

void ExpectSameBitsOfDecode(const AppendCase& c, const std::vector<int64_t>& lengths) {
  const std::vector<TestToken> tokens = LastTokens(lengths);
  ExpectSameBits(c, lengths, tokens, static_cast<int64_t>(tokens.size()));
}

std::vector<Geometry> Geometries() {
  std::vector<Geometry> geometries = {{"SmallPaperF32", kSmallPaperShape, 2, 2, 16, 8, DType::kF32},
                                      {"TinyBf16", kTinyShape, 1, 3, 6, 5, DType::kBF16}};
  if (BuildDevices().size() == 1) return geometries;
  for (const Geometry& geometry : FastAppendGeometries()) geometries.push_back(geometry);
  geometries.push_back({"SmallPaperD48x24Bf16Cuda", kSmallPaperShape, 1, 2, 48, 24, DType::kBF16,
                        DeviceType::kCuda, DType::kBF16});
  geometries.push_back({"SmallPaperD64F32Cuda", kSmallPaperShape, 1, 2, 64, 64, DType::kF32,
                        DeviceType::kCuda, DType::kF32});
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

// As many rows as a cluster emits at a time, and one more. With one KV head many clusters share the
// rows, with 8 each has all rows of its keys or values, 12 after another.
TEST_P(AppendTokensEdgeTest, AnyNumberOfRows) {
  for (const auto& [num_kv_heads, num_rows] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {1, 2}, {1, 12}, {1, 13}, {1, 80}, {8, 12}, {8, 13}, {8, 30}}) {
    AppendCase c = Case();
    c.geometry.num_kv_heads = num_kv_heads;
    const NsaShape& shape = c.geometry.shape;
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

TEST_P(AppendTokensEdgeTest, AnyNumberOfHiddenUnits) {
  for (const auto& [num_hidden_k, num_hidden_v] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {16, 17}, {129, 128}, {300, 40}, {40, 4096}}) {
    AppendCase c = Case();
    c.num_hidden_k = num_hidden_k, c.num_hidden_v = num_hidden_v;
    c.has_position = num_hidden_k % 2 == 0;
    ExpectSameBitsOfDecode(c, {32, 33, 48, 64, 80, 96});
  }
}

TEST_P(AppendTokensEdgeTest, OneStream) {
  AppendCase c = Case();
  c.shared_kv = true;
  c.rope = CmpRope::kBefore;
  for (const bool has_position : {false, true}) {
    c.has_position = has_position;
    ExpectSameBitsOfDecode(c, {32, 33, 48, 160});
  }
}

TEST_P(AppendTokensEdgeTest, NoTokenOrPaddingAlone) {
  ExpectSameBits(Case(), {48}, {}, 0);
  ExpectSameBits(Case(), {48}, {{0, -1}, {0, -1}}, 2);
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

TEST(AppendTokensDeathTest, BothOperationsAreOfOneStepAndOneCache) {
  const AppendCase c{.geometry = {"F32", kTinyShape, 1, 1, 4, 4, DType::kF32}};
  AppendWorld world(c, {8, 8}, {{0, 7}, {1, 7}}, 2), other(c, {8, 8}, {{0, 7}, {1, 7}}, 2);
  ThreadPool threads(1);
  OnDevice on(DeviceType::kCpu, &threads);
  const AppendArgs right = world.Args(on), foreign = other.Args(on);
  const auto expect_death = [&](const auto& change, const char* message) {
    AppendArgs args = right;
    change(args);
    EXPECT_DEATH(AppendTokens(args, on.stream()), message);
  };
  const char* const step = "two steps";
  const char* const cache = "raw rows that the step does not store";
  expect_death([&](AppendArgs& args) { args.compress.tokens = foreign.compress.tokens; }, step);
  expect_death([&](AppendArgs& args) { args.compress.tokens.num_decode_tokens = 1; }, step);
  expect_death(
      [&](AppendArgs& args) {
        args.compress.tokens.position = args.compress.tokens.position.Slice(0, 1);
        args.compress.tokens.sequence = args.compress.tokens.sequence.Slice(0, 1);
      },
      step);
  expect_death([&](AppendArgs& args) { args.compress.raw = foreign.compress.raw; }, cache);
  expect_death([&](AppendArgs& args) { args.compress.raw.v = foreign.compress.raw.v; }, cache);
  expect_death([&](AppendArgs& args) { args.compress.raw.table = foreign.compress.raw.table; },
               cache);
  AppendTokens(right, on.stream());
}

}  // namespace
}  // namespace nsa::testing
