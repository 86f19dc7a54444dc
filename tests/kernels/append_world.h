#pragma once
// The operands of AppendTokens with random contents.

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/nsa.h"
#include "tests/kernels/geometries.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {

// Those that Hopper appends in one launch where phi is linear or mlp.
inline std::vector<Geometry> FastAppendGeometries() {
  const auto make = [](const char* name, const NsaShape& shape, int64_t num_kv_heads, int64_t d_k,
                       int64_t d_v, DType dtype) {
    return Geometry{name, shape, num_kv_heads, 4, d_k, d_v, dtype, DeviceType::kCuda, dtype};
  };
  return {make("PaperD128Bf16Cuda", kPaperShape, 2, 128, 128, DType::kBF16),
          make("PaperD192x128F16Cuda", kPaperShape, 1, 192, 128, DType::kF16),
          make("SmallPaperD64Bf16Cuda", kSmallPaperShape, 2, 64, 64, DType::kBF16),
          make("UnpooledStrideD128Bf16Cuda", kUnpooledStrideShape, 1, 128, 128, DType::kBF16)};
}

struct AppendCase {
  Geometry geometry;
  PhiKind phi = PhiKind::kMlp;
  CmpRope rope = CmpRope::kAfter;
  bool shared_kv = false;  // one stream, whose rows are compressed
  bool has_position = true;
  int64_t num_hidden_k = 40, num_hidden_v = 40;
  int64_t ring_rows = 64;  // of the streams beside the selected branch
};

struct AppendPhiTensors {
  Tensor position, pool, matrix, fc2;

  AppendPhiTensors(const AppendCase& c, int64_t d, int64_t num_hidden, std::mt19937& random) {
    const Geometry& g = c.geometry;
    const int64_t heads = g.num_kv_heads, span = g.shape.span_tokens;
    const int64_t num_units = c.phi == PhiKind::kMlp ? num_hidden : d;
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
        phi_k_(c, c.geometry.d_k, c.num_hidden_k, random_),
        phi_v_(c, c.geometry.d_v, c.num_hidden_v, random_),
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

  // The operands on `on`, of the geometry's device. They live as long as this and `on`.
  AppendArgs Args(OnDevice& on) {
    const Geometry& g = case_.geometry;
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
    args.compress.scratch = on.Scratch(
        CompressRowsScratchBytes({.shape = g.shape,
                                  .phi = case_.phi,
                                  .num_tokens = num_tokens_,
                                  .num_seqs = sel_.table().view().dim(0),
                                  .num_kv_heads = g.num_kv_heads,
                                  .d_k = g.d_k,
                                  .d_v = g.d_v,
                                  .num_hidden = std::max(case_.num_hidden_k, case_.num_hidden_v)},
                                 on.stream()));
    return args;
  }
  const Tensor& packed() const { return packed_; }

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
  // As models have them: some more than are read, so that rows are aligned.
  int64_t NumColumns() const {
    const Geometry& g = case_.geometry;
    const int64_t num = num_heads() * (g.d_k + 3) + 3 * g.num_kv_heads * (g.d_k + g.d_v);
    return (num + 7) / 8 * 8;
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
  AppendPhiTensors phi_k_, phi_v_;
  Tensor inv_freq_;
  TestCache sel_, win_, raw_, rows_;
  Tensor packed_, q_, gates_;
};

// The last token of every sequence, and padding behind them.
inline std::vector<TestToken> LastTokens(const std::vector<int64_t>& lengths) {
  std::vector<TestToken> tokens;
  for (size_t s = 0; s < lengths.size(); ++s) {
    tokens.push_back({static_cast<int32_t>(s), static_cast<int32_t>(lengths[s] - 1)});
  }
  tokens.push_back({0, -1});
  return tokens;
}

}  // namespace nsa::testing
