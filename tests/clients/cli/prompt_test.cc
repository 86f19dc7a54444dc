#include "clients/cli/prompt.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

namespace nsa::cli {
namespace {

TEST(PromptTest, FileThenWords) {
  const std::string path = testing::TempDir() + "prompt_test.txt";
  std::ofstream(path) << "A chapter.\n";
  Options options;
  options.file = path;
  options.words = {"And", "then?"};
  std::string prompt;
  EXPECT_EQ(ReadPrompt(options, &prompt), "");
  EXPECT_EQ(prompt, "A chapter.\nAnd then?");
}

TEST(PromptTest, ErrorsNameTheFileOrTheEncoding) {
  Options options;
  options.file = "/no/such/file";
  std::string prompt;
  EXPECT_EQ(ReadPrompt(options, &prompt), "cannot read /no/such/file");
  options.file = testing::TempDir();
  EXPECT_EQ(ReadPrompt(options, &prompt), options.file + " is a directory");
  options.file = "/dev/zero";
  EXPECT_EQ(ReadPrompt(options, &prompt), "/dev/zero has more than 16777216 bytes");
  prompt.clear();
  options.file.clear();
  options.words = {"\xFF"};
  EXPECT_EQ(ReadPrompt(options, &prompt), "the prompt is not valid UTF-8");
}

TEST(PromptTest, Utf8) {
  for (const char* text : {"", "abc", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF",
                           "\xEE\x80\x80", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(IsValidUtf8(text)) << testing::PrintToString(text);
  }
  for (const char* text : {"\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                           "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "a\xC3", "\xC3(", "\xE2\x82"}) {
    EXPECT_FALSE(IsValidUtf8(text)) << testing::PrintToString(text);
  }
}

}  // namespace
}  // namespace nsa::cli
