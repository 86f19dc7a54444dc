#include "clients/cli/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nsa::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(OptionsTest, EveryFlagInBothSpellings) {
  Options options;
  EXPECT_EQ(ParseOptions({"generate", "once", "--address=h:1", "--model", "m", "upon", "--file=f",
                          "--max-tokens", "7", "--temperature=0.5", "--top-p=0.25", "--top-k=-1",
                          "--min-p=0.125", "--seed=18446744073709551615", "--stop=a", "--stop",
                          "\n", "--timeout=2.5", "--ignore-eos"},
                         &options),
            "");
  EXPECT_EQ(options.command, Options::Command::kGenerate);
  EXPECT_THAT(options.words, ElementsAre("once", "upon"));
  EXPECT_EQ(options.address, "h:1");
  EXPECT_EQ(options.model, "m");
  EXPECT_EQ(options.file, "f");
  EXPECT_EQ(options.max_tokens, 7);
  EXPECT_EQ(options.temperature, 0.5);
  EXPECT_EQ(options.top_p, 0.25);
  EXPECT_EQ(options.top_k, -1);
  EXPECT_EQ(options.min_p, 0.125);
  EXPECT_EQ(options.seed, 18446744073709551615ULL);
  EXPECT_THAT(options.stop, ElementsAre("a", "\n"));
  EXPECT_EQ(options.timeout_seconds, 2.5);
  EXPECT_TRUE(options.ignore_eos);
}

TEST(OptionsTest, ANegativeSeedIsItsBits) {
  Options options;
  EXPECT_EQ(ParseOptions({"generate", "x", "--seed=-1"}, &options), "");
  EXPECT_EQ(options.seed, 18446744073709551615ULL);
  EXPECT_EQ(ParseOptions({"generate", "x", "--seed", "-9223372036854775808"}, &options), "");
  EXPECT_EQ(options.seed, 9223372036854775808ULL);
}

TEST(OptionsTest, WhatIsNotGivenStaysAbsent) {
  Options options;
  EXPECT_EQ(ParseOptions({"chat", "--system=be brief"}, &options), "");
  EXPECT_EQ(options.command, Options::Command::kChat);
  EXPECT_EQ(options.system, "be brief");
  EXPECT_FALSE(options.temperature || options.top_p || options.top_k || options.seed);
}

TEST(OptionsTest, ErrorsNameTheArgument) {
  const auto error = [](const std::vector<std::string>& arguments) {
    Options options;
    return ParseOptions(arguments, &options);
  };
  EXPECT_THAT(error({}), HasSubstr("generate or chat"));
  EXPECT_THAT(error({"sing"}), HasSubstr("'sing'"));
  EXPECT_THAT(error({"generate"}), HasSubstr("prompt"));
  EXPECT_THAT(error({"chat", "hello"}), HasSubstr("standard input"));
  EXPECT_THAT(error({"generate", "x", "--loud"}), HasSubstr("--loud"));
  EXPECT_EQ(error({"generate", "x", "--seed=-"}), "--seed is '-'; it takes N");
  EXPECT_EQ(error({"generate", "x", "--seed=18446744073709551616"}),
            "--seed is '18446744073709551616'; it takes N");
  EXPECT_EQ(error({"generate", "x", "--max-tokens=7x"}), "--max-tokens is '7x'; it takes N");
  EXPECT_EQ(error({"generate", "x", "--temperature"}), "--temperature needs a value");
  EXPECT_EQ(error({"generate", "x", "--ignore-eos=1"}), "--ignore-eos takes no value");
  EXPECT_EQ(error({"generate", "x", "--stop="}), "--stop is ''; it takes TEXT");
}

TEST(OptionsTest, HelpListsEveryFlag) {
  Options options;
  EXPECT_EQ(ParseOptions({"generate", "--help"}, &options), "");
  EXPECT_EQ(options.command, Options::Command::kHelp);
  for (const char* flag : {"--address=", "--temperature=", "--ignore-eos"}) {
    EXPECT_THAT(HelpText(), HasSubstr(flag));
  }
}

}  // namespace
}  // namespace nsa::cli
