#include "base/log_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace nsa {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class LogWriterTest : public testing::Test {
 protected:
  LogWriterTest() { EXPECT_EQ(pipe(ends_.data()), 0); }
  ~LogWriterTest() override {
    for (const int end : ends_) close(end);
  }
  // Until `end` has come.
  std::string ReadUntil(const std::string& end) {
    std::string text;
    std::array<char, 4096> chunk;
    while (!absl::EndsWith(text, end)) {
      const ssize_t num_read = read(ends_[0], chunk.data(), chunk.size());
      if (num_read <= 0) break;
      text.append(chunk.data(), static_cast<size_t>(num_read));
    }
    return text;
  }
  std::array<int, 2> ends_;
};

TEST_F(LogWriterTest, WritesInOrderAndAllOfItAtTheEnd) {
  std::string expected;
  {
    LogWriter writer(ends_[1], 1 << 20);
    for (int i = 0; i < 100; ++i) {
      writer.Write(absl::StrCat(i, "\n"));
      absl::StrAppend(&expected, i, "\n");
    }
  }
  EXPECT_EQ(ReadUntil("99\n"), expected);
}

TEST_F(LogWriterTest, NobodyWaitsForAReader) {
  LogWriter writer(ends_[1], 1 << 20);
  const std::string line = std::string(999, 'x') + "\n";
  for (int i = 0; i < 4000; ++i) writer.Write(line);  // the pipe holds 64 KiB, the writer 1 MiB
  EXPECT_FALSE(writer.Flush(absl::Milliseconds(10)));
  std::string text;
  std::thread reader([&] { text = ReadUntil("last\n"); });
  EXPECT_TRUE(writer.Flush(absl::Seconds(20)));
  writer.Write("last\n");
  reader.join();
  EXPECT_THAT(text, StartsWith(line));
  EXPECT_THAT(text, EndsWith("last\n"));
  EXPECT_THAT(text, HasSubstr("lines of the log were lost lines="));
  EXPECT_LT(text.size(), size_t{1200} * 1000);
}

}  // namespace
}  // namespace nsa
