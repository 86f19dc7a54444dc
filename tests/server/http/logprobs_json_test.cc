#include "server/http/logprobs_json.h"

#include <gtest/gtest.h>

namespace nsa {
namespace {

using Tokens = std::vector<TokenLogprob>;

TokenLogprob Token(const std::string& bytes, double logprob,
                   std::vector<TokenLogprob::Alternative> top = {}) {
  return {.bytes = bytes, .logprob = logprob, .top = std::move(top)};
}

TEST(TokenText, SpellsBytesThatAreNotText) {
  EXPECT_EQ(TokenText(" the"), " the");
  EXPECT_EQ(TokenText("\xC3\xA9"), "\xC3\xA9");
  EXPECT_EQ(TokenText(""), "");
  EXPECT_EQ(TokenText("\xE2\x80"), R"(bytes:\xe2\x80)");
  EXPECT_EQ(TokenText("a\x80"), R"(bytes:\x61\x80)");
}

TEST(CompletionLogprobs, HasFourParallelLists) {
  TextPosition position;
  position.AddText(" a");
  const auto json = CompletionLogprobs(Tokens{Token(" a", -0.5,
                                                    {{.token = 1, .bytes = " a", .logprob = -0.5},
                                                     {.token = 2, .bytes = " b", .logprob = -1.5}}),
                                              Token("bc", -2.25)},
                                       &position);
  EXPECT_EQ(json.dump(),
            R"({"tokens":[" a","bc"],"token_logprobs":[-0.5,-2.25],)"
            R"("top_logprobs":[{" a":-0.5," b":-1.5},{"bc":-2.25}],"text_offset":[0,2]})");
}

TEST(CompletionLogprobs, TheChosenTokenIsAlwaysThereWithTheSameNumber) {
  // A float that has no short decimal form.
  const double chosen = static_cast<float>(-7.1234567);
  TextPosition position;
  const auto json = CompletionLogprobs(
      Tokens{Token("x", chosen, {{.token = 1, .bytes = "y", .logprob = -0.1F}})}, &position);
  EXPECT_EQ(json["top_logprobs"][0].size(), 2U);
  EXPECT_EQ(json["top_logprobs"][0]["x"].dump(), json["token_logprobs"][0].dump());
  const auto reread = nlohmann::json::parse(json.dump());
  EXPECT_EQ(reread["token_logprobs"][0].get<double>(), chosen);
}

TEST(CompletionLogprobs, OfTwoTokensWithOneTextTheLikelierIsKept) {
  TextPosition position;
  const auto json = CompletionLogprobs(Tokens{Token("A", -3,
                                                    {{.token = 1, .bytes = "A", .logprob = -1},
                                                     {.token = 2, .bytes = "A", .logprob = -3}})},
                                       &position);
  EXPECT_EQ(json["top_logprobs"][0].dump(), R"({"A":-1.0})");
}

TEST(CompletionLogprobs, OffsetsCountCharactersAndGoOnInTheNextChunk) {
  TextPosition position;
  // é as two tokens: both lie in character 1.
  const auto first = CompletionLogprobs(
      Tokens{Token("x", 0), Token("\xC3", 0), Token("\xA9", 0), Token("", 0)}, &position);
  EXPECT_EQ(first["text_offset"].dump(), "[0,1,1,2]");
  const auto second =
      CompletionLogprobs(Tokens{Token("\xE2\x82\xAC\xE2\x82\xAC", 0), Token("z", 0)}, &position);
  EXPECT_EQ(second["text_offset"].dump(), "[2,4]");
}

TEST(CompletionLogprobs, ASpaceThatIsNotInTheTextCountsForNothing) {
  const Tokens tokens = {Token("", 0), Token(" once", 0), Token(" upon", 0)};
  TextPosition without;
  without.AddText("once");
  EXPECT_EQ(CompletionLogprobs(tokens, &without)["text_offset"].dump(), "[0,0,4]");
  TextPosition with;
  with.AddText(" o");
  EXPECT_EQ(CompletionLogprobs(tokens, &with)["text_offset"].dump(), "[0,0,5]");
  // A token that is nothing but the space, and has no text.
  TextPosition alone;
  EXPECT_EQ(CompletionLogprobs(Tokens{Token(" ", 0)}, &alone)["text_offset"].dump(), "[0]");
  alone.AddText(" x");
  EXPECT_EQ(CompletionLogprobs(Tokens{Token(" x", 0), Token("y", 0)}, &alone)["text_offset"].dump(),
            "[0,2]");
}

TEST(ChatLogprobs, HasTheChatShape) {
  EXPECT_EQ(
      ChatLogprobs(Tokens{Token("\xC3\xA9", -0.5, {{.bytes = "\xC3", .logprob = -1}})}).dump(),
      "{\"content\":[{\"token\":\"\xC3\xA9\",\"logprob\":-0.5,\"bytes\":[195,169],"
      "\"top_logprobs\":[{\"token\":\"bytes:\\\\xc3\",\"logprob\":-1.0,\"bytes\":[195]}]}],"
      "\"refusal\":null}");
  EXPECT_EQ(ChatLogprobs(Tokens{}).dump(), R"({"content":[],"refusal":null})");
}

}  // namespace
}  // namespace nsa
