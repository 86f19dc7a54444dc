// Our reading of SentencePiece models against the SentencePiece library, on the same models.

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/text/utf8.h"
#include "tests/support/tiny_tokenizer.h"

namespace nsa {
namespace {

// Words of the vocabulary, words it lacks, spaces, symbols, and characters that normalization rules
// change: full-width letters, ligatures, composed and decomposed accents, odd spaces.
const std::vector<std::string>& Parts() {
  static const auto* const parts = new std::vector<std::string>{"the",
                                                                "The",
                                                                "ship",
                                                                "dog",
                                                                "queen",
                                                                "upon",
                                                                "xyzzy",
                                                                "zq",
                                                                "house",
                                                                "n",
                                                                "o",
                                                                "42",
                                                                "7",
                                                                " ",
                                                                " ",
                                                                " ",
                                                                "  ",
                                                                "   ",
                                                                "\t",
                                                                "\n",
                                                                "\n\n",
                                                                "\r",
                                                                "\xC2\xA0",
                                                                "\xE3\x80\x80",
                                                                ".",
                                                                ",",
                                                                "?",
                                                                "<s>",
                                                                "</s>",
                                                                "<0x41>",
                                                                "<unk>",
                                                                "<|turn|>",
                                                                "\xE2\x96\x81",
                                                                "\xEF\xBC\xA1\xEF\xBD\x82",
                                                                "\xEF\xAC\x81",
                                                                "\xC3\xA9",
                                                                "e\xCC\x81",
                                                                "\xE2\x84\xA2",
                                                                "\xC2\xBD",
                                                                "\xE6\xBC\xA2\xE5\xAD\x97",
                                                                "\xF0\x9F\xA6\x8A",
                                                                "\xE2\x80\x94",
                                                                "\xE2\x80\x8B",
                                                                "\xEF\xBF\xBD",
                                                                "\xED\x9F\xBF",
                                                                "\x01"};
  return *parts;
}

std::string RandomText(std::mt19937* random) {
  std::string text;
  for (size_t i = (*random)() % 16; i > 0; --i) text += Parts()[(*random)() % Parts().size()];
  return text;
}

struct NamedOptions {
  const char* name;
  TinyTokenizerOptions options;
};

class ParityTest : public testing::TestWithParam<NamedOptions> {
 protected:
  void SetUp() override {
    model_ = TinyTokenizerModel(GetParam().options);
    tokenizer_ = MakeTinyTokenizer(GetParam().options);
  }
  std::string model_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(ParityTest, EncodesAsTheLibraryDoes) {
  std::mt19937 random(5);
  for (int round = 0; round < 600; ++round) {
    const std::string text = RandomText(&random);
    const auto tokens = tokenizer_->Encode(text, /*add_special_tokens=*/false);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(*tokens, LibraryEncode(model_, text)) << testing::PrintToString(text);
  }
}

TEST_P(ParityTest, EncodesLongTextsAsTheLibraryDoes) {
  std::mt19937 random(6);
  std::string text;
  for (int i = 0; i < 400; ++i) text += RandomText(&random);
  EXPECT_EQ(*tokenizer_->Encode(text, false), LibraryEncode(model_, text));
}

// Of models that keep white space: with the others the library trims what it decodes.
using DecodeParityTest = ParityTest;

TEST_P(DecodeParityTest, DecodesAsTheLibraryDoes) {
  std::mt19937 random(7);
  for (int round = 0; round < 500; ++round) {
    const std::vector<int32_t> tokens = *tokenizer_->Encode(RandomText(&random), false);
    EXPECT_EQ(tokenizer_->Decode(tokens), LibraryDecode(model_, tokens));
  }
}

std::string NameOf(const testing::TestParamInfo<NamedOptions>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(
    Models, ParityTest,
    testing::Values(
        NamedOptions{"BpeLlama", {}}, NamedOptions{"BpeBare", {.adds_leading_space = false}},
        NamedOptions{"BpeWithoutBytes", {.byte_fallback = false}},
        NamedOptions{"BpeNmtNfkc", {.normalization = "nmt_nfkc", .remove_extra_whitespaces = true}},
        NamedOptions{"BpeFolded", {.normalization = "nfkc_cf"}},
        NamedOptions{"UnigramLlama", {.model_type = "unigram"}},
        NamedOptions{"UnigramT5",
                     {.model_type = "unigram",
                      .normalization = "nmt_nfkc",
                      .byte_fallback = false,
                      .remove_extra_whitespaces = true}},
        NamedOptions{"UnigramSuffix", {.model_type = "unigram", .whitespace_as_suffix = true}},
        NamedOptions{"BpeSuffix",
                     {.remove_extra_whitespaces = true, .whitespace_as_suffix = true}}),
    NameOf);

INSTANTIATE_TEST_SUITE_P(Models, DecodeParityTest,
                         testing::Values(NamedOptions{"BpeLlama", {}},
                                         NamedOptions{"BpeBare", {.adds_leading_space = false}},
                                         NamedOptions{"BpeWithoutBytes", {.byte_fallback = false}},
                                         NamedOptions{"UnigramLlama", {.model_type = "unigram"}}),
                         NameOf);

}  // namespace
}  // namespace nsa
