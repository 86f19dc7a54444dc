#include "base/check.h"

#include <gtest/gtest.h>

#include "base/log.h"

namespace nsa {
namespace {

TEST(Check, PassesInSilence) {
  testing::internal::CaptureStderr();
  NSA_CHECK(true) << "not evaluated";
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(CheckDeathTest, NamesThePlaceTheConditionAndTheMessage) {
  EXPECT_DEATH(NSA_CHECK_EQ(1 + 1, 3) << "sum",
               "check_test.cc:[0-9]+: check failed: .*2 against 3.* sum");
}

TEST(CheckDeathTest, ObeysTheFormatOfTheLog) {
  EXPECT_DEATH(
      {
        SetLogFormat(LogFormat::kJson);
        NSA_CHECK(false) << "a \"quoted\" word";
      },
      R"(^\{"time":"[^"]*","level":"error","message":"[^"]*check failed: false a \\"quoted\\" word"\})");
}

}  // namespace
}  // namespace nsa
