#include "server/exit_timer.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/time/clock.h"

namespace nsa {
namespace {

TEST(ExitTimerDeathTest, EndsAProcessThatHangs) {
  const auto hang = [](int status) {
    ExitAfter(absl::Milliseconds(20), status);
    absl::SleepFor(absl::Minutes(1));
    std::_Exit(3);
  };
  EXPECT_EXIT(hang(0), testing::ExitedWithCode(0), "did not finish within 20ms");
  EXPECT_EXIT(hang(1), testing::ExitedWithCode(1), "did not finish within 20ms");
}

}  // namespace
}  // namespace nsa
