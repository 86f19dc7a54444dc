#include "engine/text/hf/added_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace nsa::hf {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Json = nlohmann::json;

// Parts of a text: the text itself or "#id".
std::vector<std::string> Parts(const std::vector<AddedToken>& tokens, const Normalizer& normalizer,
                               const std::string& text) {
  std::vector<std::string> parts;
  const AddedTokenSplitter splitter(tokens, normalizer);
  const absl::Status status = splitter.Split(
      text,
      [&](std::string_view part) {
        parts.emplace_back(part);
        return absl::OkStatus();
      },
      [&](int32_t token) { parts.push_back(absl::StrCat("#", token)); });
  EXPECT_TRUE(status.ok());
  return parts;
}

TEST(AddedTokensTest, AreFoundInText) {
  const std::vector<AddedToken> tokens = {{"<a>", 1}, {"<a>b", 2}, {"<s>", 3, /*is_special=*/true}};
  const Normalizer none;
  EXPECT_THAT(Parts(tokens, none, "x<a>y<a>b<s>"), ElementsAre("x", "#1", "y", "#2", "<s>"));
  EXPECT_THAT(Parts(tokens, none, "<a><a>"), ElementsAre("#1", "#1"));
  EXPECT_THAT(Parts(tokens, none, ""), ElementsAre());
  EXPECT_THAT(Parts({}, none, "<a>"), ElementsAre("<a>"));
}

TEST(AddedTokensTest, NormalizedOnesAreFoundInNormalizedText) {
  const Json nfc = {{"type", "NFC"}};
  const Normalizer normalizer = *Normalizer::Parse(JsonNode(&nfc));
  const std::string composed = "\xC3\xA9";
  const std::string decomposed = "e\xCC\x81";
  const std::vector<AddedToken> raw = {{decomposed, 1}};
  const std::vector<AddedToken> normalized = {{decomposed, 1, false, /*is_normalized=*/true}};
  EXPECT_THAT(Parts(raw, normalizer, composed + decomposed), ElementsAre(composed, "#1"));
  EXPECT_THAT(Parts(normalized, normalizer, composed + decomposed), ElementsAre("#1", "#1"));
}

TEST(AddedTokensTest, TheFirstErrorStops) {
  const AddedTokenSplitter splitter({{"|", 1}}, Normalizer());
  int num_calls = 0;
  const absl::Status status = splitter.Split(
      "a|b",
      [&](std::string_view) {
        ++num_calls;
        return absl::InternalError("no");
      },
      [](int32_t) {});
  EXPECT_EQ(status.message(), "no");
  EXPECT_EQ(num_calls, 1);
}

TEST(AddedTokensTest, Parsing) {
  const Json json = Json::parse(R"([{"id": 7, "content": "<x>", "special": true, "lstrip": false},
                                    {"id": 8, "content": "y"}])");
  const auto tokens = *ParseAddedTokens(JsonNode(&json, "added_tokens"));
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_EQ(tokens[0].content, "<x>");
  EXPECT_EQ(tokens[0].id, 7);
  EXPECT_TRUE(tokens[0].is_special);
  EXPECT_FALSE(tokens[0].is_normalized);
  EXPECT_TRUE(tokens[1].is_normalized);
}

TEST(AddedTokensTest, WrongOnesAreNamed) {
  const auto refused = [](const char* text, absl::StatusCode code, const std::string& words) {
    const Json json = Json::parse(text);
    const absl::Status status = ParseAddedTokens(JsonNode(&json, "added_tokens")).status();
    EXPECT_EQ(status.code(), code) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  refused(R"({})", kInvalid, "added_tokens is an object");
  refused(R"([5])", kInvalid, "added_tokens[0].content is absent");
  refused(R"([{"content": "", "id": 1}])", kInvalid, "added_tokens[0].content is \"\"");
  refused(R"([{"content": "x"}])", kInvalid, "added_tokens[0].id is absent");
  refused(R"([{"content": "x", "id": -1}])", kInvalid, "added_tokens[0].id is -1");
  refused(R"([{"content": "x", "id": 4294967297}])", kInvalid, "id is 4294967297");
  for (const char* key : {"lstrip", "rstrip", "single_word"}) {
    const std::string text = std::string(R"([{"content": "x", "id": 1, ")") + key + "\": true}]";
    refused(text.c_str(), kUnimplemented, std::string(key) + " is true; supported: false");
  }
}

}  // namespace
}  // namespace nsa::hf
