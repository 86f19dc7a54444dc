// Sampling: greedy and ties, each filter at, below and above its limit, distributions by
// chi-square with fixed seeds, log-probabilities, and logits that are no numbers.

#include "kernels/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "tests/support/compare.h"
#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Sampled {
  int32_t token = -1;
  float logprob = kNan;
  bool finite = false;
  std::vector<int32_t> top_tokens;
  std::vector<float> top_logprobs;
};

class SamplingTest : public DeviceTest {
 protected:
  // One row of logits, sampled in as many ways as there are rows.
  static std::vector<Sampled> SampleAll(const std::vector<float>& logits,
                                        std::vector<SampleRow> rows) {
    const auto num_rows = static_cast<int64_t>(rows.size());
    const auto vocab = static_cast<int64_t>(logits.size());
    Tensor repeated(DType::kF32, {num_rows, vocab});
    for (int64_t i = 0; i < num_rows; ++i) {
      std::copy(logits.begin(), logits.end(), repeated.data<float>() + i * vocab);
    }
    const Tensor tokens(DType::kI32, {num_rows}), logprobs(DType::kF32, {num_rows});
    const Tensor top_tokens(DType::kI32, {num_rows, kMaxTopLogprobs});
    const Tensor top_logprobs(DType::kF32, {num_rows, kMaxTopLogprobs});
    const Tensor finite(DType::kU8, {num_rows});
    const TensorView row_bytes(rows.data(), DType::kU8,
                               {num_rows * static_cast<int64_t>(sizeof(SampleRow))});
    OnDevice on(GetParam());
    SampleTokens({.logits = on(repeated),
                  .rows = {static_cast<const SampleRow*>(on(row_bytes).raw()), rows.size()},
                  .tokens = on(tokens),
                  .logprobs = on(logprobs),
                  .top_tokens = on(top_tokens),
                  .top_logprobs = on(top_logprobs),
                  .finite = on(finite)},
                 on.stream());
    on.Fetch();
    std::vector<Sampled> all;
    for (int64_t i = 0; i < num_rows; ++i) {
      Sampled sampled{tokens.data<int32_t>()[i],
                      logprobs.data<float>()[i],
                      finite.data<uint8_t>()[i] != 0,
                      {},
                      {}};
      for (int32_t j = 0; j < rows[static_cast<size_t>(i)].num_top_logprobs; ++j) {
        sampled.top_tokens.push_back(top_tokens.data<int32_t>()[i * kMaxTopLogprobs + j]);
        sampled.top_logprobs.push_back(top_logprobs.data<float>()[i * kMaxTopLogprobs + j]);
      }
      all.push_back(sampled);
    }
    return all;
  }

  static Sampled SampleOne(const std::vector<float>& logits, const SampleRow& row) {
    return SampleAll(logits, {row})[0];
  }

  static int32_t Greedy(const std::vector<float>& logits) {
    return SampleOne(logits, {.params = {.temperature = 0}}).token;
  }

  // How often each token is drawn over positions 0 .. num_draws - 1.
  static std::map<int32_t, int64_t> Draws(const std::vector<float>& logits,
                                          const SamplingParams& params, int64_t num_draws = 2000) {
    std::vector<SampleRow> rows;
    for (int64_t i = 0; i < num_draws; ++i) rows.push_back({.params = params, .position = i});
    std::map<int32_t, int64_t> counts;
    for (const Sampled& sampled : SampleAll(logits, std::move(rows))) ++counts[sampled.token];
    return counts;
  }

  static std::set<int32_t> Support(const std::vector<float>& logits, const SamplingParams& params,
                                   int64_t num_draws = 2000) {
    std::set<int32_t> tokens;
    for (const auto& [token, count] : Draws(logits, params, num_draws)) tokens.insert(token);
    return tokens;
  }
};
NSA_INSTANTIATE_ON_DEVICES(SamplingTest);

// Logits with these probabilities.
std::vector<float> LogitsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

double ChiSquare(const std::map<int32_t, int64_t>& counts, const std::vector<double>& expected,
                 int64_t num_draws) {
  double chi = 0;
  for (size_t token = 0; token < expected.size(); ++token) {
    if (expected[token] == 0) continue;
    const auto found = counts.find(static_cast<int32_t>(token));
    const double count = found == counts.end() ? 0.0 : static_cast<double>(found->second);
    const double mean = expected[token] * static_cast<double>(num_draws);
    chi += (count - mean) * (count - mean) / mean;
  }
  return chi;
}

TEST_P(SamplingTest, GreedyTakesTheLargestLogitAndTheLowerIdOnATie) {
  EXPECT_EQ(Greedy({1, 3, 2}), 1);
  EXPECT_EQ(Greedy({5}), 0);
  EXPECT_EQ(Greedy({1, 7, 3, 7, 7}), 1);
  EXPECT_EQ(Greedy({-0.0F, 0.0F}), 0);
  EXPECT_EQ(Greedy({0.0F, -0.0F}), 0);
  std::vector<float> many(1000, -3);
  many[417] = many[900] = 0.5F;
  EXPECT_EQ(Greedy(many), 417);
}

TEST_P(SamplingTest, GreedySurvivesNonNumbers) {
  EXPECT_EQ(Greedy({kNan, 1, kNan, 2}), 3);
  EXPECT_EQ(Greedy({kNan, kNan}), 0);
  EXPECT_EQ(Greedy({-kInfinity, -kInfinity}), 0);
  EXPECT_EQ(Greedy({-kInfinity, -1e38F}), 1);
  EXPECT_EQ(Greedy({1, kInfinity, 2, kInfinity}), 1);
  std::vector<float> many(100, kNan);
  many[63] = -5;
  EXPECT_EQ(Greedy(many), 63);
}

TEST_P(SamplingTest, SampleNonNumbersAreNeverDrawn) {
  EXPECT_EQ(Support({kNan, 1, -kInfinity, 1}, {}), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(Support({0, kInfinity, 3, kInfinity}, {}), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(Support({kNan, -kInfinity}, {}), (std::set<int32_t>{0}));
  EXPECT_EQ(Support({kNan, 1, -kInfinity, 1}, {.top_k = 3, .top_p = 0.99F}),
            (std::set<int32_t>{1, 3}));
}

TEST_P(SamplingTest, SampleFollowsTheDistribution) {
  constexpr int64_t kDraws = 20000;
  const std::vector<double> p = {0.05, 0.4, 0.15, 0.1, 0.3};
  const std::map<int32_t, int64_t> counts = Draws(LogitsOf(p), {.seed = 42}, kDraws);
  EXPECT_LT(ChiSquare(counts, p, kDraws), 18.5);  // 4 degrees of freedom, p = 0.001
  // And the test can fail: a uniform expectation is refused.
  EXPECT_GT(ChiSquare(counts, std::vector<double>(5, 0.2), kDraws), 1000);
}

TEST_P(SamplingTest, SampleTemperatureSharpensAndFlattens) {
  constexpr int64_t kDraws = 20000;
  const std::vector<double> p = {0.1, 0.2, 0.7};
  for (float temperature : {0.5F, 2.0F}) {
    std::vector<double> expected;
    for (double x : p) expected.push_back(std::pow(x, 1 / temperature));
    const double total = std::accumulate(expected.begin(), expected.end(), 0.0);
    for (double& x : expected) x /= total;
    const auto counts = Draws(LogitsOf(p), {.temperature = temperature, .seed = 7}, kDraws);
    EXPECT_LT(ChiSquare(counts, expected, kDraws), 13.9) << temperature;  // 2 degrees, p = 0.001
  }
  EXPECT_EQ(Support(LogitsOf(p), {.temperature = 1e-6F}), (std::set<int32_t>{2}));
}

TEST_P(SamplingTest, SampleFilteredProbabilitiesAreRenormalised) {
  constexpr int64_t kDraws = 20000;
  const auto counts = Draws(LogitsOf({0.1, 0.2, 0.3, 0.4}), {.top_k = 2, .seed = 3}, kDraws);
  EXPECT_LT(ChiSquare(counts, {0, 0, 3.0 / 7, 4.0 / 7}, kDraws), 10.9);  // 1 degree, p = 0.001
  EXPECT_EQ(counts.size(), 2U);
}

TEST_P(SamplingTest, TopKKeepsExactlyK) {
  const std::vector<float> logits = LogitsOf({0.15, 0.3, 0.1, 0.2, 0.25});
  EXPECT_EQ(Support(logits, {.top_k = 1}), (std::set<int32_t>{1}));
  EXPECT_EQ(Support(logits, {.top_k = 2}), (std::set<int32_t>{1, 4}));
  EXPECT_EQ(Support(logits, {.top_k = 4}), (std::set<int32_t>{0, 1, 3, 4}));
  for (int32_t all : {0, -1, 5, 6, 1000})
    EXPECT_EQ(Support(logits, {.top_k = all}).size(), 5U) << all;
}

TEST_P(SamplingTest, TopKTiesKeepTheLowerIds) {
  EXPECT_EQ(Support({1, 2, 2, 1, 2}, {.top_k = 2}), (std::set<int32_t>{1, 2}));
  EXPECT_EQ(Support({1, 2, 2, 1, 2}, {.top_k = 4}), (std::set<int32_t>{0, 1, 2, 4}));
  EXPECT_EQ(Support(std::vector<float>(100, 0.5F), {.top_k = 3}), (std::set<int32_t>{0, 1, 2}));
  EXPECT_EQ(Support({-0.0F, 0.0F, 0.0F}, {.top_k = 1}), (std::set<int32_t>{0}));
}

TEST_P(SamplingTest, TopKNeighbouringFloatsAreToldApart) {
  const float x = 3.25F, above = std::nextafter(x, 4.0F), below = std::nextafter(x, 3.0F);
  EXPECT_EQ(Support({below, x, above, x, below}, {.top_k = 1}), (std::set<int32_t>{2}));
  EXPECT_EQ(Support({below, x, above, x, below}, {.top_k = 3}), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(Support({-below, -x, -above}, {.top_k = 2}), (std::set<int32_t>{0, 1}));
}

TEST_P(SamplingTest, TopPKeepsTheFewestThatReachTheMass) {
  // Powers of two: the sums are exact.
  const std::vector<float> logits = {0, std::log(2.0F), -40, 0, -40};  // 1/4, 1/2, 0, 1/4, 0
  const std::vector<float> equal = {1, 1, 1, 1};
  EXPECT_EQ(Support(equal, {.top_p = 0.5F}), (std::set<int32_t>{0, 1}));      // reached exactly
  EXPECT_EQ(Support(equal, {.top_p = 0.49F}), (std::set<int32_t>{0, 1}));     // just below
  EXPECT_EQ(Support(equal, {.top_p = 0.51F}), (std::set<int32_t>{0, 1, 2}));  // just above
  EXPECT_EQ(Support(equal, {.top_p = 0.0F}), (std::set<int32_t>{0}));         // at least one
  EXPECT_EQ(Support(equal, {.top_p = 1.0F}).size(), 4U);
  EXPECT_EQ(Support(logits, {.top_p = 0.49F}), (std::set<int32_t>{1}));
  EXPECT_EQ(Support(logits, {.top_p = 0.6F}), (std::set<int32_t>{0, 1}));
}

TEST_P(SamplingTest, TopPIsTakenOfWhatTopKLeft) {
  const std::vector<float> logits = LogitsOf({0.3, 0.25, 0.25, 0.2});
  // Of all, 0.5 needs two tokens. Of the first two, the first alone has 0.545.
  EXPECT_EQ(Support(logits, {.top_p = 0.5F}), (std::set<int32_t>{0, 1}));
  EXPECT_EQ(Support(logits, {.top_k = 2, .top_p = 0.5F}), (std::set<int32_t>{0}));
  // A tie at the limit of top_k stays cut for top_p.
  EXPECT_EQ(Support({1, 1, 1, 1}, {.top_k = 2, .top_p = 0.99F}), (std::set<int32_t>{0, 1}));
}

TEST_P(SamplingTest, MinPDropsBelowTheFractionOfTheBest) {
  const std::vector<float> logits = {0, std::log(0.5F), std::log(0.25F), std::log(0.125F)};
  EXPECT_EQ(Support(logits, {.min_p = 0.24F}), (std::set<int32_t>{0, 1, 2}));
  EXPECT_EQ(Support(logits, {.min_p = 0.26F}), (std::set<int32_t>{0, 1}));
  EXPECT_EQ(Support(logits, {.min_p = 0.0F}).size(), 4U);
  EXPECT_EQ(Support(logits, {.min_p = 1.0F}), (std::set<int32_t>{0}));
  EXPECT_EQ(Support({0, 0, -1}, {.min_p = 1.0F}), (std::set<int32_t>{0, 1}));
  // The temperature comes first: at 2, a quarter becomes a half.
  EXPECT_EQ(Support(logits, {.temperature = 2, .min_p = 0.49F}), (std::set<int32_t>{0, 1, 2}));
}

TEST_P(SamplingTest, IsAFunctionOfLogitsParamsAndPosition) {
  std::mt19937 random(3);
  const Tensor logits = RandomTensor(DType::kF32, {40, 300}, random, 2);
  std::vector<SampleRow> rows;
  for (int64_t i = 0; i < 40; ++i) {
    rows.push_back({.params = {.top_k = static_cast<int32_t>(i % 5) * 10,
                               .top_p = i % 3 == 0 ? 0.8F : 1.0F,
                               .seed = static_cast<uint64_t>(i / 2)},
                    .position = i});
  }
  ThreadPool threads(3);
  std::vector<Tensor> sampled;
  for (ThreadPool* pool : {&threads, static_cast<ThreadPool*>(nullptr)}) {
    const Tensor tokens(DType::kI32, {40}), logprobs(DType::kF32, {40}), finite(DType::kU8, {40});
    const Tensor top_tokens(DType::kI32, {40, kMaxTopLogprobs});
    const Tensor top_logprobs(DType::kF32, {40, kMaxTopLogprobs});
    const TensorView row_bytes(rows.data(), DType::kU8,
                               {40 * static_cast<int64_t>(sizeof(SampleRow))});
    OnDevice on(GetParam(), pool);
    SampleTokens({.logits = on(logits),
                  .rows = {static_cast<const SampleRow*>(on(row_bytes).raw()), rows.size()},
                  .tokens = on(tokens),
                  .logprobs = on(logprobs),
                  .top_tokens = on(top_tokens),
                  .top_logprobs = on(top_logprobs),
                  .finite = on(finite)},
                 on.stream());
    on.Fetch();
    sampled.push_back(Converted(tokens, DType::kI32));
  }
  EXPECT_TRUE(IsIdentical(sampled[1], sampled[0]));
  for (int64_t i = 0; i < 40; ++i) {
    const float* row = logits.data<float>() + i * 300;
    EXPECT_EQ(SampleOne({row, row + 300}, rows[static_cast<size_t>(i)]).token, sampled[0].At(i));
  }
}

TEST_P(SamplingTest, SaysWhetherAllLogitsAreFinite) {
  for (const float odd : {kNan, kInfinity, -kInfinity}) {
    std::vector<float> logits(2000, 0.5F);
    EXPECT_TRUE(SampleOne(logits, {}).finite);
    logits[1999] = odd;
    EXPECT_FALSE(SampleOne(logits, {}).finite) << odd;
  }
}

// The filters against a full sort in double precision, on large vocabularies.
TEST_P(SamplingTest, SampleSupportMatchesAFullSort) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 30; ++trial) {
    const Tensor tensor = RandomTensor(DType::kF32, {5000}, random, 3);
    std::vector<float> logits(tensor.data<float>(), tensor.data<float>() + 5000);
    for (size_t i = 0; i < logits.size(); i += 3) logits[i] = std::round(logits[i]);  // many ties
    const SamplingParams params{.temperature = 0.7F + 0.1F * static_cast<float>(trial % 5),
                                .top_k = trial % 4 == 0 ? 0 : 1 << (trial % 11),
                                .top_p = trial % 3 == 0 ? 1.0F : 0.9F,
                                .seed = static_cast<uint64_t>(trial)};
    std::vector<int32_t> order(5000);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    if (params.top_k > 0) order.resize(std::min<size_t>(order.size(), params.top_k));
    std::vector<double> weights;
    for (int32_t id : order) {
      weights.push_back(
          std::exp((static_cast<double>(logits[id]) - logits[order[0]]) / params.temperature));
    }
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    double mass = 0;
    size_t num_kept = 0;
    while (num_kept < order.size() && (num_kept == 0 || mass < params.top_p * total)) {
      mass += weights[num_kept++];
    }
    // The last token may go either way by rounding.
    const std::set<int32_t> allowed(
        order.begin(), order.begin() + static_cast<int64_t>(std::min(num_kept + 1, order.size())));
    for (int32_t token : Support(logits, params, 200)) {
      ASSERT_TRUE(allowed.count(token)) << "trial " << trial << " token " << token;
    }
  }
}

TEST(UniformTest, IsTheSameEverywhereAndUniform) {
  // The published first words of Philox4x32-10 for key 0 and counter 0.
  EXPECT_EQ(UniformAt(0, 0), static_cast<double>(0xe169c58d6627e8d5ULL >> 11) * 0x1p-53);
  constexpr int kBins = 64, kDraws = 64000;
  for (uint64_t seed : {0ULL, 1ULL, 0xffffffffffffffffULL}) {
    std::map<int32_t, int64_t> counts;
    for (uint64_t i = 0; i < kDraws; ++i) {
      const double u = UniformAt(seed, i);
      ASSERT_GE(u, 0);
      ASSERT_LT(u, 1);
      ++counts[static_cast<int32_t>(u * kBins)];
    }
    EXPECT_LT(ChiSquare(counts, std::vector<double>(kBins, 1.0 / kBins), kDraws),
              103.4);  // p = 0.001
  }
  // Neighbouring seeds and positions are independent.
  EXPECT_NE(UniformAt(1, 0), UniformAt(0, 1));
  double covariance = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    covariance += (UniformAt(i, 5) - 0.5) * (UniformAt(i + 1, 5) - 0.5);
  }
  EXPECT_LT(std::fabs(covariance / 10000), 4.0 / 12 / 100);
}

TEST_P(SamplingTest, LogProbIsTheLogSoftmaxOfTheUnmodifiedLogits) {
  const std::vector<double> p = {0.1, 0.2, 0.05, 0.4, 0.25};
  const Sampled sampled =
      SampleOne(LogitsOf(p), {.params = {.temperature = 0.3F, .top_k = 2}, .num_top_logprobs = 3});
  EXPECT_NEAR(sampled.logprob, std::log(p[static_cast<size_t>(sampled.token)]), 1e-6);
  EXPECT_EQ(sampled.top_tokens, (std::vector<int32_t>{3, 4, 1}));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(sampled.top_logprobs[i], std::log(p[static_cast<size_t>(sampled.top_tokens[i])]),
                1e-6);
  }
}

TEST_P(SamplingTest, LogProbChosenTokenPrintsTheSameNumberAsTheTopList) {
  std::mt19937 random(8);
  for (int trial = 0; trial < 50; ++trial) {
    const Tensor tensor = RandomTensor(DType::kF32, {1000}, random, 4);
    const Sampled sampled = SampleOne({tensor.data<float>(), tensor.data<float>() + 1000},
                                      {.params = {.temperature = 0}, .num_top_logprobs = 20});
    EXPECT_EQ(sampled.token, sampled.top_tokens[0]);
    EXPECT_EQ(sampled.logprob, sampled.top_logprobs[0]);
    EXPECT_TRUE(std::is_sorted(sampled.top_logprobs.rbegin(), sampled.top_logprobs.rend()));
  }
}

TEST_P(SamplingTest, LogProbTiesShowTheLowerIdFirst) {
  const Sampled sampled =
      SampleOne({1, 2, 2, 1, 2}, {.params = {.temperature = 0}, .num_top_logprobs = 4});
  EXPECT_EQ(sampled.top_tokens, (std::vector<int32_t>{1, 2, 4, 0}));
}

TEST_P(SamplingTest, LogProbSmallVocabularyAndNonNumbers) {
  const Sampled sampled =
      SampleOne({kNan, 0, -kInfinity}, {.params = {.temperature = 0}, .num_top_logprobs = 5});
  EXPECT_EQ(sampled.token, 1);
  EXPECT_EQ(sampled.logprob, 0);
  EXPECT_EQ(sampled.top_tokens, (std::vector<int32_t>{1, 0, 2, -1, -1}));
  EXPECT_EQ(sampled.top_logprobs,
            (std::vector<float>{0, -kInfinity, -kInfinity, -kInfinity, -kInfinity}));
  const Sampled infinite =
      SampleOne({0, kInfinity}, {.params = {.temperature = 0}, .num_top_logprobs = 1});
  EXPECT_EQ(infinite.logprob, 0);
  const Sampled none =
      SampleOne({kNan, kNan}, {.params = {.temperature = 0}, .num_top_logprobs = 0});
  EXPECT_EQ(none.logprob, -kInfinity);
}

TEST_P(SamplingTest, LogProbChosenOnlyAndNotAskedFor) {
  EXPECT_NEAR(SampleOne({0, 0}, {.num_top_logprobs = 0}).logprob, std::log(0.5), 1e-7);
  EXPECT_TRUE(std::isnan(SampleOne({0, 0}, {.num_top_logprobs = -1}).logprob)) << "left as it was";
}

}  // namespace
}  // namespace nsa::testing
