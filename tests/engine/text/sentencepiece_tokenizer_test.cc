#include "engine/text/sentencepiece_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/utf8.h"
#include "tests/support/tiny_tokenizer.h"

namespace nsa {
namespace {

using testing::HasSubstr;

const char* const kTexts[] = {"",
                              " ",
                              "  two leading spaces",
                              "The dog and the cat",
                              "a\nb\n\nc",
                              "tab\tand a fox \xF0\x9F\xA6\x8A and caf\xC3\xA9",
                              "\xE6\xBC\xA2\xE5\xAD\x97",
                              "trailing space "};

struct Kind {
  const char* model_type;
  bool adds_leading_space;
};

class SentencePieceTokenizerTest : public testing::TestWithParam<Kind> {
 protected:
  std::unique_ptr<Tokenizer> Make(bool add_bos) const {
    return MakeTinyTokenizer({.model_type = GetParam().model_type,
                              .adds_leading_space = GetParam().adds_leading_space,
                              .add_bos = add_bos});
  }
};

TEST_P(SentencePieceTokenizerTest, DecodeInvertsEncode) {
  const auto tokenizer = Make(/*add_bos=*/true);
  for (const char* text : kTexts) {
    const auto tokens = tokenizer->Encode(text, /*add_special_tokens=*/true);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(tokenizer->Decode(*tokens), text);
  }
}

TEST_P(SentencePieceTokenizerTest, BosIsAddedWhereAsked) {
  const auto with_bos = Make(/*add_bos=*/true);
  const auto without_bos = Make(/*add_bos=*/false);
  const std::vector<int32_t> bare = *with_bos->Encode("The dog", /*add_special_tokens=*/false);
  std::vector<int32_t> expected = bare;
  expected.insert(expected.begin(), with_bos->bos_token());
  EXPECT_EQ(*with_bos->Encode("The dog", /*add_special_tokens=*/true), expected);
  EXPECT_EQ(*without_bos->Encode("The dog", /*add_special_tokens=*/true), bare);
  EXPECT_EQ(*with_bos->Encode("", /*add_special_tokens=*/true),
            std::vector<int32_t>{with_bos->bos_token()});
}

TEST_P(SentencePieceTokenizerTest, LeadingSpaceIsKnown) {
  EXPECT_EQ(Make(true)->adds_leading_space(), GetParam().adds_leading_space);
}

INSTANTIATE_TEST_SUITE_P(Kinds, SentencePieceTokenizerTest,
                         testing::Values(Kind{"bpe", true}, Kind{"bpe", false},
                                         Kind{"unigram", true}),
                         [](const testing::TestParamInfo<Kind>& info) {
                           return std::string(info.param.model_type) +
                                  (info.param.adds_leading_space ? "Prefix" : "Bare");
                         });

TEST(SentencePieceTokenizerDetailsTest, TokenBytesOfEveryKindOfToken) {
  const auto tokenizer = MakeTinyTokenizer();
  EXPECT_EQ(tokenizer->bos_token(), 1);
  EXPECT_EQ(tokenizer->eos_token(), 2);
  EXPECT_EQ(tokenizer->TokenBytes(1), "");
  EXPECT_EQ(tokenizer->TokenBytes(-1), "");
  EXPECT_EQ(tokenizer->TokenBytes(tokenizer->vocab_size()), "");
  const std::vector<int32_t> dog = *tokenizer->Encode("the the", false);
  EXPECT_EQ(tokenizer->TokenBytes(dog[0]), " the");
  // A character the vocabulary lacks falls back to its bytes.
  const std::vector<int32_t> fox = *tokenizer->Encode("\xF0\x9F\xA6\x8A", false);
  std::string bytes;
  for (const int32_t token : fox) bytes += tokenizer->TokenBytes(token);
  EXPECT_EQ(bytes, " \xF0\x9F\xA6\x8A");
  EXPECT_EQ(tokenizer->TokenBytes(fox.back()), "\x8A");
}

TEST(SentencePieceTokenizerDetailsTest, All256BytesHaveAToken) {
  const auto tokenizer = MakeTinyTokenizer();
  std::set<std::string> single_bytes;
  for (int32_t token = 0; token < tokenizer->vocab_size(); ++token) {
    const std::string bytes = tokenizer->TokenBytes(token);
    if (bytes.size() == 1) single_bytes.insert(bytes);
  }
  EXPECT_EQ(single_bytes.size(), 256u);
}

TEST(SentencePieceTokenizerDetailsTest, ControlTokensInTextAreOrdinaryText) {
  const auto tokenizer = MakeTinyTokenizer();
  const std::vector<int32_t> tokens = *tokenizer->Encode("a</s>b<|turn|>", false);
  for (const ControlToken& control : tokenizer->control_tokens()) {
    EXPECT_THAT(tokens, testing::Not(testing::Contains(control.token))) << control.text;
  }
  EXPECT_EQ(tokenizer->Decode(tokens), "a</s>b<|turn|>");
  std::set<std::string> spellings;
  for (const ControlToken& control : tokenizer->control_tokens()) spellings.insert(control.text);
  EXPECT_EQ(spellings, (std::set<std::string>{"<s>", "</s>", "<|turn|>"}));
}

TEST(SentencePieceTokenizerDetailsTest, InvalidUtf8IsRefused) {
  const auto tokenizer = MakeTinyTokenizer();
  for (const char* text : {"\xFF", "ok \xC3", "\xED\xA0\x80", "\xC0\x80"}) {
    EXPECT_EQ(tokenizer->Encode(text, true).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(SentencePieceTokenizerDetailsTest, BadFilesAreNamed) {
  const std::string missing = testing::TempDir() + "no_such_tokenizer.model";
  const absl::Status not_found = LoadSentencePieceTokenizer(missing, true).status();
  EXPECT_EQ(not_found.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(not_found.message()), HasSubstr(missing));

  const std::string path = testing::TempDir() + "broken_tokenizer.model";
  const std::string model = TinyTokenizerModel({});
  for (const std::string& content :
       {std::string(), std::string("not a tokenizer"), model.substr(0, model.size() / 2 + 1)}) {
    std::ofstream(path, std::ios::binary) << content;
    const absl::Status broken = LoadSentencePieceTokenizer(path, true).status();
    EXPECT_EQ(broken.code(), absl::StatusCode::kInvalidArgument) << content.size();
    EXPECT_THAT(std::string(broken.message()), HasSubstr(path));
  }
}

TEST(SentencePieceTokenizerDetailsTest, ThreadsShareOneTokenizer) {
  const auto tokenizer = MakeTinyTokenizer();
  const std::string text = "The ship went over the sea to the north. \xF0\x9F\xA6\x8A";
  const std::vector<int32_t> expected = *tokenizer->Encode(text, true);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        EXPECT_EQ(*tokenizer->Encode(text, true), expected);
        EXPECT_EQ(tokenizer->Decode(expected), text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace nsa
