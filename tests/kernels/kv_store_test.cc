// StoreProjections: rotation, the split of the columns, and what is written into the caches.

#include "kernels/kv_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/kernels/nsa_cache.h"
#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

Tensor InverseFrequencies(int64_t d) {
  Tensor inv_freq(DType::kF32, {d / 2});
  for (int64_t c = 0; c < d / 2; ++c) {
    inv_freq.Set(c, std::pow(10000.0, -2.0 * static_cast<double>(c) / static_cast<double>(d)));
  }
  return inv_freq;
}

// The d elements of `packed` that start at `first`, rotated for this position.
std::vector<double> Rotated(const Tensor& packed, int64_t first, int64_t d, int32_t position,
                            const Tensor& inv_freq) {
  std::vector<double> out(static_cast<size_t>(d));
  for (int64_t c = 0; c < d / 2; ++c) {
    const double angle = static_cast<double>(position) * inv_freq.At(c);
    const double a = packed.At(first + c), b = packed.At(first + c + d / 2);
    out[static_cast<size_t>(c)] = a * std::cos(angle) - b * std::sin(angle);
    out[static_cast<size_t>(c + d / 2)] = b * std::cos(angle) + a * std::sin(angle);
  }
  return out;
}

struct Case {
  std::string name;
  int64_t num_streams;
  DType cache_dtype;
  bool has_gates;
  DeviceType device = DeviceType::kCpu;
  DType activation = DType::kF32;
};

std::vector<Case> Cases() {
  std::vector<Case> cases = {{"SeparateF32", 3, DType::kF32, true},
                             {"SeparateBf16", 3, DType::kBF16, true},
                             {"SharedF32", 1, DType::kF32, true},
                             {"NoGatesBf16", 1, DType::kBF16, false}};
  if (BuildDevices().size() == 1) return cases;
  for (size_t i = 0; i < 4; ++i) {
    Case on_gpu = cases[i];
    on_gpu.name += "Cuda";
    on_gpu.device = DeviceType::kCuda;
    cases.push_back(on_gpu);
  }
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const std::string name = dtype == DType::kBF16 ? "AllBf16Cuda" : "AllF16Cuda";
    cases.push_back({"Separate" + name, 3, dtype, true, DeviceType::kCuda, dtype});
  }
  return cases;
}

class StoreProjectionsTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!HasDevice(GetParam().device)) GTEST_SKIP() << "this machine has no GPU";
  }
};

constexpr int64_t kHeads = 6, kKvHeads = 3, kDk = 6, kDv = 4, kGap = 2;
// Three KV streams between the queries and the gates, with columns that nobody reads between them.
constexpr int64_t kQColumn = 1, kStreamColumns = kKvHeads * (kDk + kDv) + kGap;
constexpr int64_t kFirstStream = kQColumn + kHeads * kDk;
constexpr int64_t kGatesColumn = kFirstStream + 3 * kStreamColumns;
constexpr int64_t kColumns = kGatesColumn + kHeads * 3 + 1;

TEST_P(StoreProjectionsTest, SplitsRotatesAndStores) {
  const Case& param = GetParam();
  std::mt19937 random(4);
  const CacheLayout pages{
      .num_kv_heads = kKvHeads, .d_k = kDk, .d_v = kDv, .page_rows = 8, .dtype = param.cache_dtype};
  CacheLayout ring = pages;
  ring.ring_rows = 16;
  std::vector<TestCache> caches;
  for (int64_t i = 0; i < param.num_streams; ++i) {
    caches.emplace_back(i == 0 ? pages : ring, std::vector<int64_t>{20, 9}, random);
    caches.back().Clear();
  }
  const std::vector<TestToken> tokens = {{0, 7}, {0, 8}, {1, 0}, {0, -1}, {0, 19}};
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  const Tensor packed = RandomTensor(param.activation, {num_tokens, kColumns}, random);
  const Tensor inv_freq = InverseFrequencies(kDk);
  Tensor q(param.activation, {num_tokens, kHeads, kDk}),
      gates(DType::kF32, {num_tokens, kHeads, 3});
  const TestTokens map(tokens);
  ThreadPool threads(2);
  OnDevice on(param.device, &threads);
  StoreProjectionsArgs args{.tokens = on(map.map()),
                            .packed = on(packed),
                            .inv_freq = on(inv_freq),
                            .q_column = kQColumn,
                            .gates_column = kGatesColumn,
                            .num_streams = param.num_streams,
                            .q = on(q),
                            .gate_logits = param.has_gates ? on(gates) : TensorView()};
  for (int64_t i = 0; i < param.num_streams; ++i) {
    args.streams[i] = {.k_column = kFirstStream + i * kStreamColumns,
                       .v_column = kFirstStream + i * kStreamColumns + kKvHeads * kDk,
                       .rotate_k = i != 2,
                       .kv = on(caches[i].kv())};
  }
  StoreProjections(args, on.stream());
  on.Fetch();

  std::vector<double> expected_q, expected_gates;
  const double tolerance = param.cache_dtype == DType::kF32 ? 1e-6 : 1.0 / 256;
  for (int64_t t = 0; t < num_tokens; ++t) {
    const TestToken& token = tokens[static_cast<size_t>(t)];
    const bool is_padding = token.position < 0;
    const int64_t row = t * kColumns;
    for (int64_t h = 0; h < kHeads; ++h) {
      const std::vector<double> rotated =
          Rotated(packed, row + kQColumn + h * kDk, kDk, token.position, inv_freq);
      for (double x : rotated) expected_q.push_back(is_padding ? 0 : x);
      for (int64_t g = 0; g < 3; ++g) {
        expected_gates.push_back(is_padding ? 0 : packed.At(row + kGatesColumn + h * 3 + g));
      }
    }
    for (size_t i = 0; i < caches.size() && !is_padding; ++i) {
      for (int64_t h = 0; h < kKvHeads; ++h) {
        const int64_t k = row + args.streams[i].k_column + h * kDk;
        const std::vector<double> rotated = Rotated(packed, k, kDk, token.position, inv_freq);
        for (int64_t c = 0; c < kDk; ++c) {
          const double expected = i == 2 ? packed.At(k + c) : rotated[static_cast<size_t>(c)];
          EXPECT_NEAR(caches[i].K(token.sequence, token.position, h, c), expected,
                      tolerance * std::fmax(1, std::fabs(expected)));
        }
        for (int64_t c = 0; c < kDv; ++c) {
          const double expected = packed.At(row + args.streams[i].v_column + h * kDv + c);
          EXPECT_NEAR(caches[i].V(token.sequence, token.position, h, c), expected,
                      tolerance * std::fabs(expected));
        }
      }
    }
  }
  EXPECT_TRUE(IsClose(q, expected_q, ToleranceOf(param.activation, {1e-6, 1e-6})));
  if (param.has_gates) {
    EXPECT_TRUE(IsClose(gates, expected_gates, {0, 0}));
  } else {
    EXPECT_TRUE(std::isnan(gates.At(0)));
  }
  for (const TestCache& cache : caches) {
    int64_t num_written = 0;
    for (int64_t i = 0; i < cache.k().num_elements(); ++i) {
      num_written += !std::isnan(cache.k().At(i));
    }
    EXPECT_EQ(num_written, 4 * kKvHeads * kDk);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, StoreProjectionsTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

// One head of queries, keys and values side by side in d columns each.
struct OneHead {
  Tensor q, packed;
  TestTokens map;
  StoreProjectionsArgs args;

  OneHead(const std::vector<TestToken>& tokens, int64_t d, const TestCache& cache,
          const Tensor& inv_freq, std::mt19937& random)
      : q(DType::kF32, {static_cast<int64_t>(tokens.size()), 1, d}),
        packed(RandomTensor(DType::kF32, {static_cast<int64_t>(tokens.size()), 3 * d}, random)),
        map(tokens),
        args{.tokens = map.map(),
             .packed = packed,
             .inv_freq = inv_freq,
             .num_streams = 1,
             .streams = {KvStream{.k_column = d, .v_column = 2 * d, .kv = cache.kv()}},
             .q = q} {}

  void Run(DeviceType device) {
    OnDevice on(device);
    StoreProjectionsArgs on_device = args;
    on_device.tokens = on(args.tokens);
    on_device.packed = on(args.packed);
    on_device.inv_freq = on(args.inv_freq);
    on_device.streams[0].kv = on(args.streams[0].kv);
    on_device.q = on(args.q);
    StoreProjections(on_device, on.stream());
    on.Fetch();
  }
};

class RotationTest : public DeviceTest {};
NSA_INSTANTIATE_ON_DEVICES(RotationTest);

TEST_P(RotationTest, RotationIsExactToFp32UpToAMillionPositions) {
  std::mt19937 random(17);
  std::vector<TestToken> tokens;
  for (int32_t position : {0, 1, 31, 4095, -1, 65535, 131071, 999999, 1000000}) {
    tokens.push_back({0, position});
  }
  for (int64_t d : {2, 6, 64, 128, 256}) {
    const TestCache cache({.d_k = d, .d_v = d, .ring_rows = 4}, {1}, random);
    const Tensor inv_freq = InverseFrequencies(d);
    OneHead head(tokens, d, cache, inv_freq, random);
    head.Run(GetParam());
    std::vector<double> expected;
    for (size_t t = 0; t < tokens.size(); ++t) {
      for (double x :
           Rotated(head.packed, static_cast<int64_t>(t) * 3 * d, d, tokens[t].position, inv_freq)) {
        expected.push_back(tokens[t].position < 0 ? 0 : x);
      }
    }
    EXPECT_TRUE(IsClose(head.q, expected, {5e-7, 1e-6})) << d;
  }
}

TEST_P(RotationTest, ScoresDependOnTheDistanceAlone) {
  std::mt19937 random(17);
  const TestCache cache({.d_k = 64, .d_v = 64, .ring_rows = 4}, {1}, random);
  const Tensor inv_freq = InverseFrequencies(64);
  const auto score = [&](int32_t q_position, int32_t k_position) {
    std::mt19937 same(3);
    OneHead query({{0, q_position}}, 64, cache, inv_freq, same);
    OneHead key({{0, k_position}}, 64, cache, inv_freq, same);
    query.Run(GetParam());
    key.Run(GetParam());
    double sum = 0;
    for (int64_t i = 0; i < 64; ++i) sum += query.q.At(i) * cache.K(0, k_position, 0, i);
    return sum;
  };
  EXPECT_NEAR(score(20, 3), score(500020, 500003), 2e-5);
  EXPECT_GT(std::fabs(score(20, 3) - score(21, 3)), 1e-2);
}

TEST_P(RotationTest, RingWrapsAround) {
  std::mt19937 random(4);
  const TestCache ring({.d_k = 2, .d_v = 2, .ring_rows = 10}, {1}, random);
  const Tensor inv_freq = InverseFrequencies(2);
  // No step stores more rows than the ring has.
  for (int64_t first : {0, 10, 20}) {
    const int64_t end = std::min<int64_t>(first + 10, 25);
    OneHead head(Chunk(0, first, end), 2, ring, inv_freq, random);
    head.Run(GetParam());
    for (int64_t row = first; row < end; ++row) {
      EXPECT_EQ(ring.V(0, row, 0, 1), head.packed.At((row - first) * 6 + 5)) << row;
    }
  }
}

TEST(StoreProjectionsDeathTest, ColumnsBeyondTheRowAreAProgrammerError) {
  std::mt19937 random(4);
  const TestCache cache({.d_k = 4, .d_v = 4, .page_rows = 8}, {20}, random);
  const Tensor inv_freq = InverseFrequencies(4);
  OneHead head({{0, 3}}, 4, cache, inv_freq, random);
  head.args.streams[0].v_column = 9;
  EXPECT_DEATH(StoreProjections(head.args, {}), "columns 9\\+4 of f32\\[1, 12\\]");
  head.args.streams[0].v_column = 8;
  const TestTokens unknown({{3, 0}});
  head.args.tokens = unknown.map();
  EXPECT_DEATH(StoreProjections(head.args, {}), "sequence 3 of 1");
}

}  // namespace
}  // namespace nsa::testing
