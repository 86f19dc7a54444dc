#include "kernels/pending_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/test_device.h"

namespace nsa::testing {
namespace {

using PendingTokensTest = DeviceTest;

TensorView View(std::vector<int32_t>& values) {
  return {values.data(), DType::kI32, {static_cast<int64_t>(values.size())}};
}

TEST_P(PendingTokensTest, NegativeIdsNameRows) {
  std::vector<int32_t> ids = {5, -1, 0, -3, -3}, sampled = {70, 80, 90};
  OnDevice on(GetParam());
  TakePendingTokens({.ids = on(View(ids)), .sampled = on(View(sampled))}, on.stream());
  on.Fetch();
  EXPECT_THAT(ids, ::testing::ElementsAre(5, 70, 0, 90, 90));
  EXPECT_THAT(sampled, ::testing::ElementsAre(70, 80, 90));
}

// More tokens than a block of threads has.
TEST_P(PendingTokensTest, AnyNumberOfTokens) {
  constexpr int kTokens = 1000;
  std::vector<int32_t> ids(kTokens), sampled(kTokens), expected(kTokens);
  for (int t = 0; t < kTokens; ++t) {
    sampled[t] = 3 * t + 1;
    ids[t] = t % 3 == 0 ? t : -1 - (kTokens - 1 - t);
    expected[t] = t % 3 == 0 ? t : 3 * (kTokens - 1 - t) + 1;
  }
  OnDevice on(GetParam());
  TakePendingTokens({.ids = on(View(ids)), .sampled = on(View(sampled))}, on.stream());
  on.Fetch();
  EXPECT_EQ(ids, expected);
}

NSA_INSTANTIATE_ON_DEVICES(PendingTokensTest);

TEST(PendingTokensDeathTest, ARowThatIsNotThereIsAProgrammerError) {
  std::vector<int32_t> ids = {-4}, sampled = {1, 2, 3};
  EXPECT_DEATH(TakePendingTokens({.ids = View(ids), .sampled = View(sampled)}, {}), "3 against 3");
}

}  // namespace
}  // namespace nsa::testing
