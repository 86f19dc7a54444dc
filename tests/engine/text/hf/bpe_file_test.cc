#include "engine/text/hf/bpe_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/tiny_bpe.h"

namespace nsa::hf {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

absl::StatusOr<BpeFile> Parse(const Json& file) {
  const JsonNode root(&file);
  const auto added = ParseAddedTokens(root.Member("added_tokens"));
  if (!added.ok()) return added.status();
  return ParseBpeFile(root.Member("model"), *added);
}

void ExpectRefused(const Json& file, absl::StatusCode code, const std::string& words) {
  const absl::Status status = Parse(file).status();
  EXPECT_EQ(status.code(), code) << words;
  EXPECT_THAT(std::string(status.message()), HasSubstr(words));
}

TEST(BpeFileTest, TokensOfEveryKind) {
  const BpeFile file = *Parse(TinyBpeFile());
  EXPECT_EQ(file.spec.tokens.size(), static_cast<size_t>(kTinyVocab));
  EXPECT_EQ(file.spec.tokens[kTinyThe].bytes, " the");
  EXPECT_TRUE(file.spec.tokens[kTinyThe].is_encodable);
  EXPECT_EQ(file.spec.tokens[kTinyEnd].bytes, "");
  EXPECT_FALSE(file.spec.tokens[kTinyEnd].is_encodable);
  EXPECT_EQ(file.spec.tokens[kTinyCall].bytes, "<call>");
  ASSERT_EQ(file.control_tokens.size(), 1u);
  EXPECT_EQ(file.control_tokens[0].text, "<|end|>");
  EXPECT_EQ(file.control_tokens[0].token, kTinyEnd);
  ASSERT_EQ(file.spec.merges.size(), 3u);
  EXPECT_EQ(file.spec.merges[2].left, ' ');
  EXPECT_EQ(file.spec.merges[2].result, kTinyThe);
  EXPECT_FALSE(file.spec.ignore_merges);
}

TEST(BpeFileTest, MergesInBothSpellings) {
  Json file = TinyBpeFile();
  file["model"]["merges"] = Json::parse(R"([["t", "h"], ["th", "e"]])");
  file["model"]["ignore_merges"] = true;
  const BpeFile parsed = *Parse(file);
  EXPECT_EQ(parsed.spec.merges[1].result, 257);
  EXPECT_TRUE(parsed.spec.ignore_merges);
}

TEST(BpeFileTest, HolesAreTokensOfNothing) {
  Json file = TinyBpeFile();
  file["added_tokens"][1]["id"] = 300;
  const BpeFile parsed = *Parse(file);
  EXPECT_EQ(parsed.spec.tokens.size(), 301u);
  EXPECT_EQ(parsed.spec.tokens[280].bytes, "");
  EXPECT_FALSE(parsed.spec.tokens[280].is_encodable);
}

TEST(BpeFileTest, AnAddedTokenOfTheVocabulary) {
  Json file = TinyBpeFile();
  file["added_tokens"].push_back({{"id", 257}, {"content", "the"}, {"special", true}});
  EXPECT_FALSE(Parse(file)->spec.tokens[257].is_encodable);
  file["added_tokens"][2]["special"] = false;
  EXPECT_TRUE(Parse(file)->spec.tokens[257].is_encodable);
  // In the vocabulary U+00F5 spells the byte 0xF5; as an added token it is the letter.
  file["added_tokens"][2] = {{"id", 0xF5}, {"content", "\xC3\xB5"}};
  EXPECT_EQ(Parse(file)->spec.tokens[0xF5].bytes, "\xC3\xB5");
}

TEST(BpeFileTest, DamagedTablesAreNamed) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const auto refused = [&](const char* pointer, const Json& value, const std::string& words) {
    Json file = TinyBpeFile();
    file[Json::json_pointer(pointer)] = value;
    ExpectRefused(file, kInvalid, words);
  };
  refused("/model", nullptr, "model is absent");
  refused("/model/vocab", Json::array(), "model.vocab is a list");
  refused("/model/vocab/x", "5", "model.vocab[\"x\"] is \"5\"");
  refused("/model/vocab/x", -1, "model.vocab[\"x\"] is -1; allowed: an integer from 0 to 1048575");
  refused("/model/vocab/x", 1 << 20, "model.vocab[\"x\"] is 1048576");
  refused("/model/vocab/x", 1e300, "model.vocab[\"x\"] is 1e+300");
  refused("/model/vocab/zz", 5, "has id 5, which another token has too");
  refused("/added_tokens/1/id", 259, "\"<call>\" has id 259, which another token has too");
  refused("/added_tokens/1/id", 5, "\"<call>\" has id 5");
  refused("/added_tokens/1/content", "th", "\"th\" has id 260, elsewhere 256");
  refused("/model/merges", nullptr, "model.merges is absent");
  refused("/model/merges/1", "th q q", "model.merges[1] is \"th q q\"; allowed: two tokens");
  refused("/model/merges/1", "th", "model.merges[1] is \"th\"");
  refused("/model/merges/1", Json::array({"a", 1}), "model.merges[1] is a list");
  refused("/model/merges/1", nullptr, "model.merges[1] is absent");
  refused("/model/merges/1", "th zzz", "model.merges[1]: the vocabulary has no token \"zzz\"");
  refused("/model/merges/1", "t e", "model.merges[1]: the vocabulary has no token \"te\"");
}

TEST(BpeFileTest, OptionsThatChangeTheTokensAreRefused) {
  const auto refused = [&](const char* key, const Json& value) {
    Json file = TinyBpeFile();
    file["model"][key] = value;
    ExpectRefused(file, absl::StatusCode::kUnimplemented, std::string("model.") + key + " is ");
  };
  refused("type", "Unigram");
  refused("type", "WordPiece");
  refused("byte_fallback", true);
  refused("continuing_subword_prefix", "##");
  refused("end_of_word_suffix", "</w>");
  refused("dropout", 0.1);
}

TEST(BpeFileTest, OptionsThatChangeNothingAreTaken) {
  Json file = TinyBpeFile();
  file["model"].erase("type");
  file["model"].update({{"continuing_subword_prefix", ""},
                        {"end_of_word_suffix", nullptr},
                        {"dropout", nullptr},
                        {"unk_token", ""},
                        {"byte_fallback", false}});
  EXPECT_TRUE(Parse(file).ok());
}

}  // namespace
}  // namespace nsa::hf
