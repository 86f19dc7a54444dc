// CompressRows against a double-precision phi: four kinds, three RoPE modes, pages and rings.

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "kernels/nsa.h"
#include "tests/kernels/geometries.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

constexpr int64_t kHidden = 21;

// Random weights of every kind of phi for K or V.
struct PhiTensors {
  Tensor position, pool, linear, fc1, fc2;
  PhiTensors(int64_t num_heads, int64_t span, int64_t d, DType dtype, std::mt19937& random)
      : position(RandomTensor(DType::kF32, {num_heads, span, d}, random)),
        pool(RandomTensor(DType::kF32, {num_heads, span}, random)),
        linear(RandomTensor(dtype, {num_heads, d, span * d}, random, 0.1)),
        fc1(RandomTensor(dtype, {num_heads, kHidden, span * d}, random, 0.1)),
        fc2(RandomTensor(dtype, {num_heads, d, kHidden}, random, 0.3)) {}
  PhiWeights Weights(PhiKind kind, bool has_position) const {
    PhiWeights weights;
    if (has_position) weights.position = position;
    if (kind == PhiKind::kWeightedPool) weights.weight = pool;
    if (kind == PhiKind::kLinear) weights.weight = linear;
    if (kind == PhiKind::kMlp) weights.fc1 = fc1, weights.fc2 = fc2;
    return weights;
  }
};

struct CompressCase {
  Geometry geometry;
  PhiKind phi = PhiKind::kMean;
  CmpRope rope = CmpRope::kNone;
  bool has_position = false;
};

// phi of x [span, d], flattened token-major, for KV head `head`.
std::vector<double> ReferencePhi(const CompressCase& c, const PhiTensors& w, int64_t head,
                                 const std::vector<double>& x, int64_t d) {
  const int64_t span = c.geometry.shape.span_tokens, num_inputs = span * d;
  std::vector<double> row(static_cast<size_t>(d), 0.0);
  std::vector<double> hidden(kHidden, 0.0);
  for (int64_t h = 0; h < kHidden; ++h) {
    for (int64_t i = 0; i < num_inputs; ++i) {
      hidden[h] += w.fc1.At((head * kHidden + h) * num_inputs + i) * x[i];
    }
    hidden[h] = hidden[h] / 2 * (1 + std::erf(hidden[h] / std::sqrt(2.0)));
  }
  for (int64_t o = 0; o < d; ++o) {
    switch (c.phi) {
      case PhiKind::kMean:
        for (int64_t i = 0; i < span; ++i) row[o] += x[i * d + o] / static_cast<double>(span);
        break;
      case PhiKind::kWeightedPool:
        for (int64_t i = 0; i < span; ++i) row[o] += w.pool.At(head * span + i) * x[i * d + o];
        break;
      case PhiKind::kLinear:
        for (int64_t i = 0; i < num_inputs; ++i) {
          row[o] += w.linear.At((head * d + o) * num_inputs + i) * x[i];
        }
        break;
      case PhiKind::kMlp:
        for (int64_t h = 0; h < kHidden; ++h) {
          row[o] += w.fc2.At((head * d + o) * kHidden + h) * hidden[h];
        }
        break;
    }
  }
  return row;
}

class CompressWorld {
 public:
  CompressWorld(const CompressCase& c, std::vector<int64_t> lengths, int64_t ring_rows)
      : case_(c),
        lengths_(std::move(lengths)),
        random_(11),
        phi_k_(c.geometry.num_kv_heads, c.geometry.shape.span_tokens, c.geometry.d_k,
               c.geometry.activation, random_),
        phi_v_(c.geometry.num_kv_heads, c.geometry.shape.span_tokens, c.geometry.d_v,
               c.geometry.activation, random_),
        inv_freq_(DType::kF32, {c.geometry.d_k / 2}),
        raw_(Layout(c.geometry.shape.block_tokens, ring_rows), lengths_, random_),
        rows_(Layout(c.geometry.shape.rows_per_page(), 0), NumPagedRows(), random_) {
    for (int64_t i = 0; i < c.geometry.d_k / 2; ++i) {
      inv_freq_.Set(i, std::pow(10000.0, -2.0 * static_cast<double>(i) /
                                             static_cast<double>(c.geometry.d_k)));
    }
    rows_.Clear();
  }

  void Run(const std::vector<TestToken>& tokens, ThreadPool* threads = nullptr) {
    const TestTokens map(tokens);
    const Geometry& geometry = case_.geometry;
    OnDevice on(geometry.device, threads);
    const int64_t num_bytes =
        CompressRowsScratchBytes({.shape = geometry.shape,
                                  .phi = case_.phi,
                                  .num_tokens = static_cast<int64_t>(tokens.size()),
                                  .num_seqs = static_cast<int64_t>(lengths_.size()),
                                  .num_kv_heads = geometry.num_kv_heads,
                                  .d_k = geometry.d_k,
                                  .d_v = geometry.d_v,
                                  .num_hidden = kHidden},
                                 on.stream());
    const auto weights = [&](const PhiTensors& phi) {
      const PhiWeights host = phi.Weights(case_.phi, case_.has_position);
      return PhiWeights{on(host.position), on(host.weight), on(host.fc1), on(host.fc2)};
    };
    CompressRows({.shape = geometry.shape,
                  .phi = case_.phi,
                  .rope = case_.rope,
                  .tokens = on(map.map()),
                  .raw = on(raw_.kv()),
                  .rows = on(rows_.kv()),
                  .phi_k = weights(phi_k_),
                  .phi_v = weights(phi_v_),
                  .inv_freq = case_.rope == CmpRope::kAfter ? on(inv_freq_) : TensorView(),
                  .scratch = on.Scratch(num_bytes)},
                 on.stream());
    on.Fetch();
  }

  // Row i of a sequence against the reference.
  void CheckRow(int64_t sequence, int64_t i) const {
    const Geometry& g = case_.geometry;
    // Inputs and weights in bf16 are rounded before they are summed: the error is one of the row.
    const double tolerance = g.activation == DType::kBF16 ? 1.0 / 16
                             : g.dtype == DType::kBF16    ? 1.0 / 128
                                                          : 2e-5;
    for (int64_t head = 0; head < g.num_kv_heads; ++head) {
      std::vector<double> k =
          ReferencePhi(case_, phi_k_, head, Span(sequence, i, head, true), g.d_k);
      if (case_.rope == CmpRope::kAfter) Rotate(i * g.shape.span_stride, k);
      const std::vector<double> v =
          ReferencePhi(case_, phi_v_, head, Span(sequence, i, head, false), g.d_v);
      const int64_t row = i + g.shape.row_offset();
      for (int64_t c = 0; c < g.d_k; ++c) {
        ASSERT_NEAR(rows_.K(sequence, row, head, c), k[c], tolerance * (1 + std::fabs(k[c])))
            << "row " << i << " channel " << c;
      }
      for (int64_t c = 0; c < g.d_v; ++c) {
        ASSERT_NEAR(rows_.V(sequence, row, head, c), v[c], tolerance * (1 + std::fabs(v[c])))
            << "row " << i << " channel " << c;
      }
    }
  }

  bool IsWritten(int64_t sequence, int64_t i) const {
    return !std::isnan(rows_.K(sequence, i + case_.geometry.shape.row_offset(), 0, 0));
  }
  const TestCache& rows() const { return rows_; }

 private:
  CacheLayout Layout(int64_t page_rows, int64_t ring_rows) const {
    return {.num_kv_heads = case_.geometry.num_kv_heads,
            .d_k = case_.geometry.d_k,
            .d_v = case_.geometry.d_v,
            .page_rows = page_rows,
            .dtype = case_.geometry.dtype,
            .ring_rows = ring_rows};
  }
  std::vector<int64_t> NumPagedRows() const {
    std::vector<int64_t> num;
    for (int64_t length : lengths_) {
      num.push_back(case_.geometry.shape.NumRows(length) + case_.geometry.shape.row_offset());
    }
    return num;
  }

  // Raw rows of span i plus the position encoding.
  std::vector<double> Span(int64_t sequence, int64_t i, int64_t head, bool is_key) const {
    const NsaShape& shape = case_.geometry.shape;
    const int64_t d = is_key ? case_.geometry.d_k : case_.geometry.d_v;
    const Tensor& position = is_key ? phi_k_.position : phi_v_.position;
    std::vector<double> span;
    for (int64_t j = 0; j < shape.span_tokens; ++j) {
      for (int64_t c = 0; c < d; ++c) {
        const int64_t token = i * shape.span_stride + j;
        const double x =
            is_key ? raw_.K(sequence, token, head, c) : raw_.V(sequence, token, head, c);
        const double p = position.At((head * shape.span_tokens + j) * d + c);
        span.push_back(x + (case_.has_position ? p : 0.0));
      }
    }
    return span;
  }

  void Rotate(int64_t position, std::vector<double>& k) const {
    const size_t half = k.size() / 2;
    for (size_t c = 0; c < half; ++c) {
      const double angle = static_cast<double>(position) * inv_freq_.At(static_cast<int64_t>(c));
      const double a = k[c], b = k[c + half];
      k[c] = a * std::cos(angle) - b * std::sin(angle);
      k[c + half] = b * std::cos(angle) + a * std::sin(angle);
    }
  }

  CompressCase case_;
  std::vector<int64_t> lengths_;
  std::mt19937 random_;
  PhiTensors phi_k_, phi_v_;
  Tensor inv_freq_;
  TestCache raw_, rows_;
};

const std::vector<Geometry> kCpuGeometries = {
    {"SmallPaperBf16", kSmallPaperShape, 2, 1, 16, 8, DType::kBF16},
    {"SmallPaperF32", kSmallPaperShape, 1, 1, 6, 5, DType::kF32},
    {"LlamaNsa", kLlamaNsaShape, 1, 1, 8, 8, DType::kF32},
    {"Tiny", kTinyShape, 3, 1, 4, 7, DType::kF32},
    {"UnpooledStride", kUnpooledStrideShape, 1, 1, 8, 4, DType::kF32},
    {"WideSpan", kWideSpanShape, 1, 1, 8, 4, DType::kF32},
};

// The same on a GPU, and one with weights and caches in bf16.
std::vector<Geometry> CompressGeometries() {
  std::vector<Geometry> geometries = kCpuGeometries;
  if (BuildDevices().size() == 1) return geometries;
  for (Geometry geometry : kCpuGeometries) {
    geometry.name += "Cuda";
    geometry.device = DeviceType::kCuda;
    geometries.push_back(geometry);
  }
  geometries.push_back({"SmallPaperAllBf16Cuda", kSmallPaperShape, 2, 1, 64, 32, DType::kBF16,
                        DeviceType::kCuda, DType::kBF16});
  return geometries;
}

using CompressParam = std::tuple<Geometry, PhiKind, CmpRope, bool>;
class CompressRowsTest : public ::testing::TestWithParam<CompressParam> {
 protected:
  void SetUp() override {
    if (!HasDevice(std::get<0>(GetParam()).device)) GTEST_SKIP() << "this machine has no GPU";
  }
  CompressCase Case() const {
    const auto& [geometry, phi, rope, has_position] = GetParam();
    return {geometry, phi, rope, has_position};
  }
};

TEST_P(CompressRowsTest, EmitsExactlyTheCompleteRows) {
  const CompressCase c = Case();
  const NsaShape& shape = c.geometry.shape;
  const int64_t span = shape.span_tokens, block = shape.block_tokens;
  const std::vector<int64_t> lengths = {span - 1,  span,  span + 1,  span + shape.span_stride,
                                        block - 1, block, block + 1, 2 * block + span + 3};
  CompressWorld world(c, lengths, 0);
  std::vector<TestToken> tokens;
  for (size_t s = 0; s < lengths.size(); ++s) {
    for (const TestToken& token : Chunk(static_cast<int32_t>(s), 0, lengths[s]))
      tokens.push_back(token);
  }
  tokens.push_back({0, -1});
  ThreadPool threads(2);
  world.Run(tokens, &threads);
  for (size_t s = 0; s < lengths.size(); ++s) {
    for (int64_t i = 0; i * shape.span_stride + span <= lengths[s]; ++i) {
      world.CheckRow(static_cast<int64_t>(s), i);
    }
  }
}

TEST_P(CompressRowsTest, TokenByTokenFromARingGivesTheSameBits) {
  const CompressCase c = Case();
  const int64_t length = 3 * c.geometry.shape.block_tokens + 5;
  CompressWorld whole(c, {length}, 0);
  whole.Run(Chunk(0, 0, length));
  constexpr int64_t kStepTokens = 5;
  // The ring cannot hold the whole sequence, so the raw rows are those of its end.
  CompressWorld ring(c, {length}, c.geometry.shape.span_tokens + kStepTokens - 1);
  const int64_t first = length - kStepTokens;
  ring.Run(Chunk(0, first, length));
  for (int64_t t = first; t < length; ++t) {
    if (c.geometry.shape.CompletesSpan(t)) ring.CheckRow(0, c.geometry.shape.NumRows(t + 1) - 1);
  }
  CompressWorld single(c, {length}, 0);
  ThreadPool threads(5);
  for (int64_t t = 0; t < length; ++t) single.Run(Chunk(0, t, t + 1), &threads);
  EXPECT_TRUE(IsIdentical(single.rows().k(), whole.rows().k()));
  EXPECT_TRUE(IsIdentical(single.rows().v(), whole.rows().v()));
}

std::string CaseName(const ::testing::TestParamInfo<CompressParam>& info) {
  constexpr const char* kPhi[] = {"Mean", "WeightedPool", "Linear", "Mlp"};
  constexpr const char* kRope[] = {"Before", "After", "None"};
  const auto& [geometry, phi, rope, has_position] = info.param;
  return geometry.name + kPhi[static_cast<int>(phi)] + kRope[static_cast<int>(rope)] +
         (has_position ? "Position" : "");
}

INSTANTIATE_TEST_SUITE_P(
    Cases, CompressRowsTest,
    ::testing::Combine(::testing::ValuesIn(CompressGeometries()),
                       ::testing::Values(PhiKind::kMean, PhiKind::kWeightedPool, PhiKind::kLinear,
                                         PhiKind::kMlp),
                       ::testing::Values(CmpRope::kBefore, CmpRope::kAfter, CmpRope::kNone),
                       ::testing::Bool()),
    CaseName);

class CompressRowsEdgeTest : public DeviceTest {
 protected:
  static Geometry OnParam(Geometry geometry) {
    geometry.device = GetParam();
    return geometry;
  }
};
NSA_INSTANTIATE_ON_DEVICES(CompressRowsEdgeTest);

// Enough rows for the kernels of a prefill: a step of many rows gives the bits of steps of few.
TEST_P(CompressRowsEdgeTest, ManyRowsHaveTheBitsOfFew) {
  constexpr int64_t kLength = 1300, kStep = 100;
  const DType dtype = GetParam() == DeviceType::kCpu ? DType::kF32 : DType::kBF16;
  const CompressCase c{
      .geometry = {"Many", kSmallPaperShape, 1, 1, 64, 32, dtype, GetParam(), dtype},
      .phi = PhiKind::kMlp,
      .rope = CmpRope::kAfter,
      .has_position = true};
  CompressWorld whole(c, {kLength}, 0), parts(c, {kLength}, 0);
  whole.Run(Chunk(0, 0, kLength));
  for (int64_t first = 0; first < kLength; first += kStep) {
    parts.Run(Chunk(0, first, first + kStep));
  }
  EXPECT_TRUE(IsIdentical(parts.rows().k(), whole.rows().k()));
  EXPECT_TRUE(IsIdentical(parts.rows().v(), whole.rows().v()));
  for (int64_t i = 0; i < c.geometry.shape.NumRows(kLength); i += 7) whole.CheckRow(0, i);
}

TEST_P(CompressRowsEdgeTest, ShorterThanASpanEmitsNothing) {
  const CompressCase c{.geometry = OnParam(kCpuGeometries[1])};
  CompressWorld world(c, {64}, 0);
  world.Run(Chunk(0, 0, 31));
  EXPECT_FALSE(world.IsWritten(0, 0));
  world.Run(Chunk(0, 31, 32));
  EXPECT_TRUE(world.IsWritten(0, 0));
  EXPECT_FALSE(world.IsWritten(0, 1));
  world.CheckRow(0, 0);
}

TEST_P(CompressRowsEdgeTest, AFullPageHoldsItsOwnRowsOnly) {
  // 32/16/64: page 0 holds rows 0 .. 2, page 1 rows 3 .. 6.
  const CompressCase c{.geometry = OnParam(kCpuGeometries[1])};
  CompressWorld world(c, {128}, 0);
  world.Run(Chunk(0, 0, 64));
  for (int64_t i = 0; i < 7; ++i) EXPECT_EQ(world.IsWritten(0, i), i < 3) << i;
  world.Run(Chunk(0, 64, 128));
  for (int64_t i = 0; i < 7; ++i) EXPECT_TRUE(world.IsWritten(0, i)) << i;
}

}  // namespace
}  // namespace nsa::testing
