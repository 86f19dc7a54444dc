#include "engine/text/hf/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace nsa::hf {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

const Json kByteLevel = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};

Json Steps(const std::vector<Json>& steps) {
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

Json SplitStep(const std::string& regex, const std::string& behavior, bool invert = false) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", behavior},
          {"invert", invert}};
}

Words Cut(const Json& json, const std::string& text) {
  const auto pre_tokenizer = PreTokenizer::Parse(JsonNode(&json, "pre_tokenizer"));
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  MatchState state(absl::InfiniteFuture());
  Words words;
  const absl::Status status = pre_tokenizer->Split(text, &state, [&](std::string_view word) {
    words.emplace_back(word);
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  return words;
}

TEST(PreTokenizerTest, WhatBecomesOfMatches) {
  const std::string text = "ab--c-d";
  const auto cut = [&](const char* behavior, bool invert) {
    return Cut(Steps({SplitStep("-", behavior, invert), kByteLevel}), text);
  };
  EXPECT_EQ(cut("Isolated", false), (Words{"ab", "-", "-", "c", "-", "d"}));
  EXPECT_EQ(cut("Removed", false), (Words{"ab", "c", "d"}));
  EXPECT_EQ(cut("Contiguous", false), (Words{"ab", "--", "c", "-", "d"}));
  EXPECT_EQ(cut("MergedWithPrevious", false), (Words{"ab-", "-", "c-", "d"}));
  EXPECT_EQ(cut("MergedWithNext", false), (Words{"ab", "-", "-c", "-d"}));
  EXPECT_EQ(cut("Removed", true), (Words{"-", "-", "-"}));
  EXPECT_EQ(cut("MergedWithPrevious", true), (Words{"ab", "-", "-c", "-d"}));
  EXPECT_EQ(Cut(Steps({SplitStep("-", "Isolated"), kByteLevel}), ""), Words{});
}

TEST(PreTokenizerTest, StepsFollowEachOther) {
  const Json json =
      Steps({SplitStep("\\p{N}{1,3}", "Isolated"), SplitStep("[a-z]+", "Isolated"), kByteLevel});
  EXPECT_EQ(Cut(json, "ab1234-x"), (Words{"ab", "123", "4", "-", "x"}));
}

TEST(PreTokenizerTest, DigitsAndLiterals) {
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  EXPECT_EQ(Cut(Steps({digits, kByteLevel}), "a12\xC2\xBD"), (Words{"a", "1", "2", "\xC2\xBD"}));
  EXPECT_EQ(Cut(Steps({{{"type", "Digits"}}, kByteLevel}), "a12b"), (Words{"a", "12", "b"}));
  const Json literal = {
      {"type", "Split"}, {"pattern", {{"String", "."}}}, {"behavior", "Isolated"}};
  EXPECT_EQ(Cut(Steps({literal, kByteLevel}), "a.b"), (Words{"a", ".", "b"}));
}

TEST(PreTokenizerTest, ByteLevelHasAPatternOfItsOwn) {
  const Json json = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  EXPECT_EQ(Cut(json, "I'll go  now!"), (Words{"I", "'ll", " go", " ", " now", "!"}));
  EXPECT_EQ(Cut(kByteLevel, "I go"), Words{"I go"});
  const Json prefixed = {{"type", "ByteLevel"}};
  EXPECT_TRUE(PreTokenizer::Parse(JsonNode(&prefixed))->adds_leading_space());
  EXPECT_FALSE(PreTokenizer::Parse(JsonNode(&json))->adds_leading_space());
}

TEST(PreTokenizerTest, WhatIsNotSupportedIsNamed) {
  const auto refused = [](const Json& json, const std::string& words) {
    const absl::Status status = PreTokenizer::Parse(JsonNode(&json, "pre_tokenizer")).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
    EXPECT_FALSE(status.ok());
  };
  const Json isolated = SplitStep("-", "Isolated");
  refused(nullptr, "pre_tokenizer is absent; supported: ");
  refused({{"type", "Metaspace"}}, "pre_tokenizer.type is \"Metaspace\"; supported: ");
  refused(Steps({{{"type", "Whitespace"}}, kByteLevel}), "pretokenizers[0].type is \"Whitespace\"");
  refused(Steps({isolated}), "pretokenizers[0].type is \"Split\"");
  refused(Steps({kByteLevel, isolated}), "pretokenizers[0].type is \"ByteLevel\"");
  refused(Steps({}), "supported");
  std::vector<Json> many(33, isolated);
  many.push_back(kByteLevel);
  refused(Steps(many), "pretokenizers[32] is one too many; supported: 32 in all");
  refused(Steps({isolated, {{"type", "ByteLevel"}}}), "pretokenizers[1].add_prefix_space");
  refused(Steps({SplitStep("\\w", "Isolated"), kByteLevel}), "pretokenizers[0].pattern.Regex: ");
  refused(Steps({SplitStep("", "Isolated"), kByteLevel}), "pattern.Regex is \"\"");
  refused(Steps({SplitStep("-", "Sometimes"), kByteLevel}), "behavior is \"Sometimes\"");
  refused(Steps({{{"type", "Split"}, {"behavior", "Isolated"}}, kByteLevel}), "pattern is absent");
}

}  // namespace
}  // namespace nsa::hf
