#include "engine/text/hf/hf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/utf8.h"
#include "engine/text/chat_prompt.h"
#include "engine/text/detokenizer.h"
#include "engine/text/hf/normalizer.h"
#include "tests/support/tiny_bpe.h"

namespace nsa {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Json = nlohmann::json;

const std::string kGolden = "tests/golden/tokenizers/";

std::unique_ptr<Tokenizer> Tiny(const Json& file = TinyBpeFile(),
                                const TokenizerConfig& config = {}) {
  auto tokenizer = ParseHfTokenizer(file.dump(), config);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

// tests/golden/make_tokenizers.py made the tokenizers; their tokens are Hugging Face's.
class GoldenTokenizerTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto config = LoadTokenizerConfig(kGolden + GetParam());
    ASSERT_TRUE(config.ok()) << config.status();
    auto tokenizer = LoadHfTokenizer(kGolden + GetParam() + "/tokenizer.json", *config);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    std::ifstream(kGolden + GetParam() + "/golden.json") >> cases_;
    ASSERT_GT(cases_.size(), 100u);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  Json cases_;
};

TEST_P(GoldenTokenizerTest, TokensAreHuggingFaces) {
  for (const Json& golden : cases_) {
    const auto text = golden["text"].get<std::string>();
    const auto tokens = tokenizer_->Encode(text, /*add_special_tokens=*/false);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(*tokens, golden["tokens"].get<std::vector<int32_t>>()) << text;
  }
}

TEST_P(GoldenTokenizerTest, DecodeInvertsEncode) {
  const bool composes = std::string(GetParam()) == "qwen2";
  for (const Json& golden : cases_) {
    const auto text = golden["text"].get<std::string>();
    const std::string decoded = tokenizer_->Decode(golden["tokens"]);
    // With a normalizer the text comes back composed, but for added tokens.
    EXPECT_EQ(composes ? hf::ComposedUtf8(decoded) : decoded,
              composes ? hf::ComposedUtf8(text) : text);
    IncrementalDetokenizer detokenizer(tokenizer_.get(), /*at_text_start=*/true);
    std::string streamed;
    for (const int32_t token : golden["tokens"]) {
      const std::string piece = detokenizer.Push(token);
      EXPECT_TRUE(IsValidUtf8(piece));
      streamed += piece;
    }
    EXPECT_EQ(streamed + detokenizer.Finish(), decoded);
  }
}

TEST_P(GoldenTokenizerTest, TheTextsOwnSpecialTokensStandInFront) {
  const std::vector<int32_t> bare = *tokenizer_->Encode("The dog", false);
  std::vector<int32_t> expected = bare;
  const std::string family = GetParam();
  if (family != "gpt2" && family != "qwen2") {
    expected.insert(expected.begin(), tokenizer_->bos_token());
  }
  EXPECT_EQ(*tokenizer_->Encode("The dog", true), expected);
  EXPECT_GE(tokenizer_->eos_token(), 0);
  EXPECT_EQ(tokenizer_->TokenBytes(tokenizer_->eos_token()), "");
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenTokenizerTest,
                         testing::Values("llama3", "gpt2", "qwen2", "deepseek_v3", "nemo"),
                         [](const auto& info) { return std::string(info.param); });

TEST(HfTokenizerTest, TokensOfEveryKind) {
  const auto tokenizer = Tiny();
  EXPECT_EQ(tokenizer->vocab_size(), kTinyVocab);
  EXPECT_THAT(*tokenizer->Encode("a the<call>", false), ElementsAre('a', kTinyThe, kTinyCall));
  EXPECT_EQ(tokenizer->TokenBytes(kTinyThe), " the");
  EXPECT_EQ(tokenizer->TokenBytes(kTinyCall), "<call>");
  EXPECT_EQ(tokenizer->TokenBytes(kTinyEnd), "");
  EXPECT_EQ(tokenizer->TokenBytes(0xE2), "\xE2");
  EXPECT_EQ(tokenizer->TokenBytes(-1), "");
  EXPECT_EQ(tokenizer->TokenBytes(kTinyVocab), "");
  EXPECT_EQ(tokenizer->max_token_bytes(), 7);  // <|end|>
  EXPECT_FALSE(tokenizer->adds_leading_space());
  EXPECT_EQ(tokenizer->bos_token(), -1);
  EXPECT_EQ(tokenizer->eos_token(), -1);
}

TEST(HfTokenizerTest, ControlTokensInTextAreOrdinaryText) {
  const auto tokenizer = Tiny();
  const std::vector<int32_t> tokens = *tokenizer->Encode("a<|end|>", true);
  EXPECT_EQ(tokens.size(), 8u);
  EXPECT_THAT(tokens, testing::Not(testing::Contains(kTinyEnd)));
  EXPECT_EQ(tokenizer->Decode(tokens), "a<|end|>");
  EXPECT_EQ(tokenizer->Decode({'a', kTinyEnd, 'b'}), "ab");
}

TEST(HfTokenizerTest, ChatTemplatesPlaceControlTokens) {
  const auto tokenizer = Tiny();
  const auto chat = *ChatTemplate::Compile("{{ messages[0].content }}<|end|><call>", "", "");
  const auto tokens = *EncodeChat(*chat, *tokenizer, {{"user", "<|end|>"}});
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), kTinyEnd), 1);
  EXPECT_EQ(tokens.back(), kTinyCall);
  EXPECT_EQ(tokenizer->Decode(tokens), "<|end|><call>");
}

TEST(HfTokenizerTest, InvalidUtf8IsRefused) {
  const auto tokenizer = Tiny();
  for (const char* text : {"\xFF", "ok \xC3", "\xED\xA0\x80", "\xC0\x80"}) {
    EXPECT_EQ(tokenizer->Encode(text, true).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(tokenizer->Decode({0xE4, 0xB8, 'x', 0xFF}), "\xEF\xBF\xBDx\xEF\xBF\xBD");
}

TEST(HfTokenizerTest, ZeroBytesAreText) {
  const std::string text("a\0b", 3);
  EXPECT_THAT(*Tiny()->Encode(text, false), ElementsAre('a', 0, 'b'));
}

TEST(HfTokenizerTest, APrefixSpace) {
  Json file = TinyBpeFile();
  file["pre_tokenizer"]["add_prefix_space"] = true;
  const auto tokenizer = Tiny(file);
  EXPECT_THAT(*tokenizer->Encode("the", false), ElementsAre(kTinyThe));
  EXPECT_THAT(*tokenizer->Encode(" the", false), ElementsAre(kTinyThe));
  EXPECT_THAT(*tokenizer->Encode("", false), ElementsAre());
}

Json WithTemplate() {
  Json file = TinyBpeFile();
  file["post_processor"] = Json::parse(
      R"({"type": "TemplateProcessing", "special_tokens": {"<|end|>": {"ids": [259]}},
          "single": [{"SpecialToken": {"id": "<|end|>"}}, {"Sequence": {"id": "A"}}]})");
  return file;
}

TEST(HfTokenizerTest, TheConfigOverridesTheTemplate) {
  const auto encode = [](const Json& file, const TokenizerConfig& config) {
    return *Tiny(file, config)->Encode("a", /*add_special_tokens=*/true);
  };
  EXPECT_THAT(encode(WithTemplate(), {}), ElementsAre(kTinyEnd, 'a'));
  EXPECT_EQ(Tiny(WithTemplate())->bos_token(), kTinyEnd);
  EXPECT_THAT(encode(WithTemplate(), {.add_bos = false}), ElementsAre('a'));
  EXPECT_THAT(encode(WithTemplate(), {.add_bos = true}), ElementsAre(kTinyEnd, 'a'));
  const TokenizerConfig adds{.add_bos = true, .bos_token = "<|end|>", .eos_token = "<|end|>"};
  EXPECT_THAT(encode(TinyBpeFile(), adds), ElementsAre(kTinyEnd, 'a'));
  EXPECT_EQ(Tiny(TinyBpeFile(), adds)->eos_token(), kTinyEnd);
}

TEST(HfTokenizerTest, DamagedFilesAreNamed) {
  const auto refused = [](const Json& file, const TokenizerConfig& config,
                          const std::string& words) {
    const absl::Status status = ParseHfTokenizer(file.dump(), config).status();
    EXPECT_FALSE(status.ok()) << words;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  };
  const auto with = [](const char* pointer, const Json& value) {
    Json file = TinyBpeFile();
    file[Json::json_pointer(pointer)] = value;
    return file;
  };
  refused(with("/decoder", nullptr), {}, "decoder is absent; supported: ByteLevel");
  refused(with("/decoder/type", "WordPiece"), {}, "decoder.type is \"WordPiece\"");
  refused(with("/normalizer", {{"type", "NFKC"}}), {}, "normalizer.type is \"NFKC\"");
  refused(with("/model/vocab", Json::object()), {}, "model.merges[0]: the vocabulary has no token");
  Json file = with("/model/vocab", Json::object());
  file["model"]["merges"] = Json::array();
  refused(file, {}, "no token for the byte 0x00");
  file = WithTemplate();
  file["post_processor"]["special_tokens"]["<|end|>"]["ids"] = {261};
  refused(file, {}, "there is no token 261; allowed: 0 to 260");
  refused(TinyBpeFile(), {.bos_token = "<s>"}, "bos_token of tokenizer_config.json is \"<s>\"");
  refused(TinyBpeFile(), {.add_bos = true}, "add_bos_token of tokenizer_config.json is true");
  file =
      with("/decoder", Json::parse(R"({"type": "Sequence", "decoders": [{"type": "ByteLevel"}]})"));
  EXPECT_TRUE(ParseHfTokenizer(file.dump(), {}).ok());
}

TEST(HfTokenizerTest, EveryTruncationIsRefused) {
  const std::string text = TinyBpeFile().dump();
  for (size_t length = 0; length < text.size(); length += 7) {
    EXPECT_EQ(ParseHfTokenizer(text.substr(0, length), {}).status().message(), "not valid JSON");
  }
  const std::string deep = "{\"model\": " + std::string(1'000'000, '[');
  EXPECT_THAT(std::string(ParseHfTokenizer(deep, {}).status().message()), HasSubstr("deep"));
}

TEST(HfTokenizerTest, FilesAreNamed) {
  const std::string path = testing::TempDir() + "hf_tokenizer_test.json";
  std::ofstream(path) << "{}";
  const absl::Status empty = LoadHfTokenizer(path, {}).status();
  EXPECT_THAT(std::string(empty.message()), HasSubstr(path + ": pre_tokenizer is absent"));
  EXPECT_EQ(LoadHfTokenizer(path + ".none", {}).status().code(), absl::StatusCode::kNotFound);
}

// A megabyte of each kind that is awkward: one word, one run, no spaces, marks alone.
TEST(HfTokenizerTest, MegabytesWithoutSpaces) {
  const auto config = LoadTokenizerConfig(kGolden + "qwen2");
  const auto tokenizer = *LoadHfTokenizer(kGolden + "qwen2/tokenizer.json", *config);
  for (const char* unit :
       {"a", " ", "\n", "7", "\xE4\xB8\xAD", "\xCC\x87\xCC\xA3", "-", "\r\n", "aB"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    const auto tokens = tokenizer->Encode(text, false);
    ASSERT_TRUE(tokens.ok()) << unit << tokens.status();
    EXPECT_EQ(tokenizer->Decode(*tokens).size(), text.size());
  }
}

TEST(HfTokenizerTest, ThreadsShareOneTokenizer) {
  const auto tokenizer = Tiny();
  const std::string text = "The ship went over the sea to the north. \xF0\x9F\xA6\x8A<call>";
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
