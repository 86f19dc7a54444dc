#include "server/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/tiny_bpe.h"

namespace nsa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// One entry of a SentencePiece model: text and type.
std::string Piece(const std::string& text, char type) {
  const std::string message =
      std::string("\x0A") + static_cast<char>(text.size()) + text + "\x18" + type;
  return std::string("\x0A") + static_cast<char>(message.size()) + message;
}

class ModelFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "model_folder_test." + std::to_string(getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    Write("tokenizer.model",
          Piece("<unk>", 2) + Piece("<s>", 3) + Piece("</s>", 3) + Piece("a", 1));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << content;
  }

  std::string folder_;
};

TEST_F(ModelFolderTest, ATokenizerAloneIsEnough) {
  const auto assets = LoadTextAssets(folder_, "");
  ASSERT_TRUE(assets.ok()) << assets.status();
  EXPECT_EQ(assets->tokenizer->vocab_size(), 4);
  EXPECT_EQ(assets->tokenizer_file, "tokenizer.model");
  EXPECT_EQ(assets->chat_template, nullptr);
  EXPECT_EQ(assets->chat_template_problem, "");
  EXPECT_EQ(assets->defaults.temperature, 1);
  EXPECT_EQ(assets->defaults.top_p, 1);
  EXPECT_THAT(assets->eos_tokens, ElementsAre(2));
  EXPECT_EQ(assets->tokenizer->Encode("a", true)->front(), 1);
}

TEST_F(ModelFolderTest, EveryFileIsRead) {
  Write("tokenizer_config.json",
        R"({"add_bos_token": false, "chat_template": "{{ bos_token }}{{ eos_token }}!"})");
  Write(
      "generation_config.json",
      R"({"temperature": 0.5, "top_p": 0.75, "min_p": 0.25, "top_k": 5, "eos_token_id": [2, 3]})");
  const auto assets = LoadTextAssets(folder_, "");
  ASSERT_TRUE(assets.ok()) << assets.status();
  EXPECT_NE(assets->tokenizer->Encode("a", true)->front(), 1);
  EXPECT_EQ(*assets->chat_template->Render({}), "<s></s>!");
  EXPECT_EQ(assets->defaults.temperature, 0.5);
  EXPECT_EQ(assets->defaults.top_p, 0.75);
  EXPECT_EQ(assets->defaults.min_p, 0.25);
  EXPECT_EQ(assets->defaults.top_k, 5);
  EXPECT_THAT(assets->eos_tokens, ElementsAre(2, 3));
}

TEST_F(ModelFolderTest, WhatClientsAreToldOfTheTokenizer) {
  // Spelled by the tokenizer itself.
  TokenizerInfo info = LoadTextAssets(folder_, "")->info;
  EXPECT_EQ(info.class_name, "LlamaTokenizer");
  EXPECT_EQ(info.bos_token, "<s>");
  EXPECT_EQ(info.eos_token, "</s>");
  EXPECT_EQ(info.unk_token, std::nullopt);
  EXPECT_EQ(info.vocab_size, 4);
  EXPECT_EQ(info.chat_template, "");
  EXPECT_THAT(info.special_tokens, testing::Contains(testing::Field(&ControlToken::text, "</s>")));
  // By tokenizer_config.json.
  Write("tokenizer.json", TinyBpeFile().dump());
  Write("tokenizer_config.json", R"({"tokenizer_class": "SomeTokenizer", "pad_token": "<|end|>",
                                     "unk_token": 7, "eos_token": "<|end|>",
                                     "chat_template": "{{ eos_token }}"})");
  info = LoadTextAssets(folder_, "")->info;
  EXPECT_EQ(info.class_name, "SomeTokenizer");
  EXPECT_EQ(info.bos_token, std::nullopt);
  EXPECT_EQ(info.eos_token, "<|end|>");
  EXPECT_EQ(info.pad_token, "<|end|>");
  EXPECT_EQ(info.unk_token, std::nullopt) << "what is no token counts as absent";
  EXPECT_EQ(info.vocab_size, kTinyVocab);
  EXPECT_EQ(info.chat_template, "{{ eos_token }}");
  // A template that cannot be used is not shown.
  Write("tokenizer_config.json", R"({"chat_template": "{% nonsense %}"})");
  info = LoadTextAssets(folder_, "")->info;
  EXPECT_EQ(info.chat_template, "");
  EXPECT_EQ(info.class_name, "PreTrainedTokenizerFast");
}

TEST_F(ModelFolderTest, TokenizerJsonComesFirst) {
  Write("tokenizer.json", TinyBpeFile().dump());
  Write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": "<|end|>",
                                     "eos_token": {"content": "<|end|>"},
                                     "chat_template": "{{ bos_token }}x"})");
  const auto assets = LoadTextAssets(folder_, "");
  ASSERT_TRUE(assets.ok()) << assets.status();
  EXPECT_EQ(assets->tokenizer_file, "tokenizer.json");
  EXPECT_EQ(assets->tokenizer->vocab_size(), kTinyVocab);
  EXPECT_THAT(*assets->tokenizer->Encode("a", true), ElementsAre(kTinyEnd, 'a'));
  EXPECT_THAT(assets->eos_tokens, ElementsAre(kTinyEnd));
  EXPECT_EQ(*assets->chat_template->Render({}), "<|end|>x");
  EXPECT_EQ(assets->tokenizer_problem, "");
  // One that is not supported gives way to the other file, if there is one, and says why.
  Write("tokenizer.json", R"({"pre_tokenizer": {"type": "Metaspace"}})");
  const std::string problem = "tokenizer.json: pre_tokenizer.type is \"Metaspace\"";
  const auto original = LoadTextAssets(folder_, "");
  ASSERT_TRUE(original.ok()) << original.status();
  EXPECT_EQ(original->tokenizer_file, "tokenizer.model");
  EXPECT_THAT(original->tokenizer_problem, HasSubstr(problem));
  std::filesystem::remove(folder_ + "/tokenizer.model");
  EXPECT_THAT(std::string(LoadTextAssets(folder_, "").status().message()), HasSubstr(problem));
  // A damaged one does not.
  Write("tokenizer.json", "{");
  EXPECT_EQ(LoadTextAssets(folder_, "").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ModelFolderTest, WithoutATokenizerBothFilesAreNamed) {
  std::filesystem::remove(folder_ + "/tokenizer.model");
  const absl::Status status = LoadTextAssets(folder_, "").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("neither tokenizer.json nor tokenizer.model"));
}

TEST_F(ModelFolderTest, AnUnusableTemplateOfTheModelIsReported) {
  Write("tokenizer_config.json", R"({"chat_template": "{% macro x() %}{% endmacro %}"})");
  const auto assets = LoadTextAssets(folder_, "");
  ASSERT_TRUE(assets.ok()) << assets.status();
  EXPECT_EQ(assets->chat_template, nullptr);
  EXPECT_THAT(assets->chat_template_problem, HasSubstr("'macro'"));
}

TEST_F(ModelFolderTest, ATemplateFileWinsAndMustWork) {
  Write("tokenizer_config.json", R"({"chat_template": "model"})");
  Write("own.jinja", "own");
  EXPECT_EQ(*LoadTextAssets(folder_, folder_ + "/own.jinja")->chat_template->Render({}), "own");
  Write("bad.jinja", "{{");
  const absl::Status bad = LoadTextAssets(folder_, folder_ + "/bad.jinja").status();
  EXPECT_THAT(std::string(bad.message()), HasSubstr("bad.jinja"));
  const absl::Status missing = LoadTextAssets(folder_, folder_ + "/none.jinja").status();
  EXPECT_THAT(std::string(missing.message()), HasSubstr("none.jinja"));
}

TEST_F(ModelFolderTest, DamagedFilesAreNamed) {
  Write("generation_config.json", "{");
  EXPECT_THAT(std::string(LoadTextAssets(folder_, "").status().message()),
              HasSubstr("generation_config.json"));
  Write("tokenizer_config.json", "[]");
  EXPECT_THAT(std::string(LoadTextAssets(folder_, "").status().message()),
              HasSubstr("tokenizer_config.json"));
  std::filesystem::remove(folder_ + "/tokenizer_config.json");
  Write("tokenizer.model", "damaged");
  EXPECT_THAT(std::string(LoadTextAssets(folder_, "").status().message()),
              HasSubstr("tokenizer.model"));
}

TEST_F(ModelFolderTest, ADirectoryWhereAFileBelongsIsNamed) {
  EXPECT_THAT(std::string(LoadTextAssets(folder_, folder_).status().message()),
              HasSubstr("is a directory"));
  // The file that is read last comes first, so that no directory hides the next one.
  for (const char* name :
       {"generation_config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::remove(folder_ + "/" + name);
    std::filesystem::create_directory(folder_ + "/" + name);
    EXPECT_THAT(std::string(LoadTextAssets(folder_, "").status().message()),
                HasSubstr(std::string(name) + ": is a directory"));
  }
}

TEST(ModelNameTest, TheFoldersOwnName) {
  EXPECT_EQ(ModelNameOf("models/nsa-story"), "nsa-story");
  EXPECT_EQ(ModelNameOf("models/nsa-story/"), "nsa-story");
  EXPECT_EQ(ModelNameOf("/a/b/../c/."), "c");
  EXPECT_EQ(ModelNameOf("."), "model");
  EXPECT_EQ(ModelNameOf("/"), "model");
}

}  // namespace
}  // namespace nsa
