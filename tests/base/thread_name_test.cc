#include "base/thread_name.h"

#include <fstream>
#include <string>
#include <thread>

#include "gtest/gtest.h"

namespace nsa {
namespace {

std::string NameShownBySystem() {
  std::string name;
  std::getline(std::ifstream("/proc/thread-self/comm"), name);
  return name;
}

TEST(ThreadNameTest, TheSystemShowsTheNameOfTheThreadAlone) {
  const std::string before = NameShownBySystem();
  std::thread([] {
    NameThisThread("fifteen-letters");
    EXPECT_EQ(NameShownBySystem(), "fifteen-letters");
  }).join();
  EXPECT_EQ(NameShownBySystem(), before);
}

TEST(ThreadNameDeathTest, ALongerNameIsAMistake) {
  EXPECT_DEATH(NameThisThread("sixteen--letters"), "sixteen--letters is too long");
}

}  // namespace
}  // namespace nsa
