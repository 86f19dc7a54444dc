#include "base/machine.h"

#include "gtest/gtest.h"

namespace nsa {
namespace {

TEST(MachineTest, AContainersShareOfTimeLimitsTheCores) {
  EXPECT_EQ(LimitCores(16, "max 100000"), 16);
  EXPECT_EQ(LimitCores(16, "400000 100000"), 4);
  EXPECT_EQ(LimitCores(16, "400001 100000"), 5);
  EXPECT_EQ(LimitCores(16, "50000 100000"), 1);
  EXPECT_EQ(LimitCores(2, "400000 100000"), 2);
  EXPECT_EQ(LimitCores(8, "9223372036854775807 100000"), 8);
}

TEST(MachineTest, ALimitThatIsNoneIsIgnored) {
  for (const char* text : {"", "max", "-1 100000", "0 100000", "100000 0", "many 100000"}) {
    EXPECT_EQ(LimitCores(8, text), 8) << text;
  }
}

TEST(MachineTest, ThisMachineHasCoresAndMemory) {
  EXPECT_GE(NumUsableCores(), 1);
  const MachineMemory memory = GetMachineMemory();
  EXPECT_GT(memory.total, int64_t{1} << 28);
  EXPECT_GT(memory.available, 0);
  EXPECT_LE(memory.available, memory.total);
  if (memory.container_limit.has_value()) {
    EXPECT_LT(*memory.container_limit, memory.total);
  }
}

}  // namespace
}  // namespace nsa
