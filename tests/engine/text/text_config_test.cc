#include "engine/text/text_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace nsa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(TextConfigTest, TokenizerConfigInBothSpellings) {
  const TokenizerConfig plain = *ParseTokenizerConfig(
      R"({"add_bos_token": false, "chat_template": "T", "bos_token": "<s>", "eos_token": null})");
  EXPECT_EQ(plain.add_bos, false);
  EXPECT_EQ(plain.chat_template, "T");
  EXPECT_EQ(plain.bos_token, "<s>");
  EXPECT_FALSE(plain.eos_token.has_value());
  const TokenizerConfig nested = *ParseTokenizerConfig(
      R"({"chat_template": [{"name": "tool_use", "template": "X"},
                            {"name": "default", "template": "Y"}],
          "eos_token": {"content": "</s>", "lstrip": false}})");
  EXPECT_FALSE(nested.add_bos.has_value());
  EXPECT_EQ(ParseTokenizerConfig(R"({"add_bos_token": true})")->add_bos, true);
  EXPECT_EQ(nested.chat_template, "Y");
  EXPECT_EQ(nested.eos_token, "</s>");
}

TEST(TextConfigTest, GenerationConfig) {
  const GenerationConfig config = *ParseGenerationConfig(
      R"({"temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.05, "eos_token_id": [2, 7],
          "do_sample": true})");
  EXPECT_DOUBLE_EQ(*config.temperature, 0.8);
  EXPECT_DOUBLE_EQ(*config.top_p, 0.95);
  EXPECT_EQ(config.top_k, 40);
  EXPECT_DOUBLE_EQ(*config.min_p, 0.05);
  EXPECT_THAT(config.eos_tokens, ElementsAre(2, 7));
  EXPECT_THAT(ParseGenerationConfig(R"({"eos_token_id": 2})")->eos_tokens, ElementsAre(2));
  EXPECT_FALSE(ParseGenerationConfig("{}")->temperature.has_value());
}

TEST(TextConfigTest, WithoutSamplingTheTemperatureIsZero) {
  EXPECT_EQ(ParseGenerationConfig(R"({"do_sample": false})")->temperature, 0);
  EXPECT_EQ(ParseGenerationConfig(R"({"do_sample": false, "temperature": 0.8})")->temperature, 0);
  EXPECT_EQ(ParseGenerationConfig(R"({"do_sample": null, "temperature": 1})")->temperature, 1);
}

TEST(TextConfigTest, AnEndBehindThePromptIsRefused) {
  EXPECT_TRUE(ParseTokenizerConfig(R"({"add_eos_token": false})").ok());
  const absl::Status status = ParseTokenizerConfig(R"({"add_eos_token": true})").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("add_eos_token is true"));
}

TEST(TextConfigTest, WrongValuesAreNamed) {
  const auto expect_refused = [](const absl::Status& status, const std::string& word) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << word;
    EXPECT_THAT(std::string(status.message()), HasSubstr(word));
  };
  expect_refused(ParseTokenizerConfig("{").status(), "not valid JSON");
  expect_refused(ParseTokenizerConfig("[]").status(), "not a JSON object");
  expect_refused(ParseTokenizerConfig(R"({"add_bos_token": 1})").status(), "add_bos_token is 1");
  expect_refused(ParseTokenizerConfig(R"({"chat_template": 5})").status(), "chat_template is 5");
  expect_refused(ParseTokenizerConfig(R"({"chat_template": [5]})").status(), "chat_template");
  expect_refused(ParseTokenizerConfig(R"({"bos_token": {}})").status(), "bos_token");
  expect_refused(ParseGenerationConfig(R"({"temperature": 2.1})").status(), "temperature is 2.1");
  expect_refused(ParseGenerationConfig(R"({"top_p": 0})").status(), "top_p is 0");
  expect_refused(ParseGenerationConfig(R"({"top_k": "many"})").status(), "top_k is \"many\"");
  expect_refused(ParseGenerationConfig(R"({"eos_token_id": [-1]})").status(), "eos_token_id");
  expect_refused(ParseGenerationConfig(R"({"do_sample": 0})").status(), "do_sample is 0");
}

TEST(TextConfigTest, FilesOfAFolder) {
  const std::string folder = testing::TempDir() + "text_config_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  EXPECT_TRUE(LoadTokenizerConfig(folder)->chat_template.empty());
  EXPECT_THAT(LoadGenerationConfig(folder)->eos_tokens, IsEmpty());
  std::ofstream(folder + "/tokenizer_config.json") << R"({"chat_template": "T"})";
  EXPECT_EQ(LoadTokenizerConfig(folder)->chat_template, "T");
  std::ofstream(folder + "/generation_config.json") << "";
  const absl::Status empty = LoadGenerationConfig(folder).status();
  EXPECT_THAT(std::string(empty.message()), HasSubstr("generation_config.json"));
  EXPECT_EQ(empty.code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nsa
