#include "server/http/api_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nsa {
namespace {

using ::testing::MatchesRegex;

std::string FingerprintOf(const std::string& version, const std::string& model,
                          const std::string& attention) {
  GenerationService::Dependencies dependencies;
  dependencies.model.name = model;
  dependencies.model.attention = attention;
  GenerationService service(std::move(dependencies));
  return MakeApiContext(&service, nullptr, version).fingerprint;
}

TEST(ApiContext, TheFingerprintChangesWithServerAndModel) {
  const std::string base = FingerprintOf("1", "m", "nsa");
  EXPECT_THAT(base, MatchesRegex("fp_[0-9a-f]{16}"));
  EXPECT_EQ(FingerprintOf("1", "m", "nsa"), base);
  EXPECT_NE(FingerprintOf("2", "m", "nsa"), base);
  EXPECT_NE(FingerprintOf("1", "n", "nsa"), base);
  EXPECT_NE(FingerprintOf("1", "m", "full"), base);
}

}  // namespace
}  // namespace nsa
