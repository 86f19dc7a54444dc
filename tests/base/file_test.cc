#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace nsa {
namespace {

using testing::HasSubstr;

class ReadFileTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << content;
    return folder_ + "/" + name;
  }

  static void ExpectError(const std::string& path, int64_t max_bytes, absl::StatusCode code,
                          const std::string& word) {
    const absl::Status status = ReadFile(path, max_bytes).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), testing::AllOf(HasSubstr(path), HasSubstr(word)));
  }

  const std::string folder_ = testing::TempDir() + "read_file_test." + std::to_string(getpid());
};

TEST_F(ReadFileTest, EveryByte) {
  const std::string bytes("a\0\n\xFF", 4);
  EXPECT_EQ(*ReadFile(Write("some", bytes), 100), bytes);
  EXPECT_EQ(*ReadFile(Write("empty", ""), 100), "");
  const std::string large(200'000, 'x');
  EXPECT_EQ(*ReadFile(Write("large", large), 200'000), large);
}

TEST_F(ReadFileTest, TheLimitIsTheLastAllowedSize) {
  const std::string path = Write("ten", "0123456789");
  EXPECT_TRUE(ReadFile(path, 10).ok());
  ExpectError(path, 9, absl::StatusCode::kInvalidArgument, "has 10 bytes; at most 9");
}

TEST_F(ReadFileTest, RegularFilesOnly) {
  ExpectError(folder_ + "/none", 9, absl::StatusCode::kNotFound, "no such file");
  ExpectError(folder_, 9, absl::StatusCode::kInvalidArgument, "is a directory");
  ExpectError("/dev/zero", 9, absl::StatusCode::kInvalidArgument, "is not a regular file");
  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  ExpectError(pipe, 9, absl::StatusCode::kInvalidArgument, "is not a regular file");
}

}  // namespace
}  // namespace nsa
