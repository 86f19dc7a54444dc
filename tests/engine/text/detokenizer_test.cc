#include "engine/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/support/tiny_tokenizer.h"

namespace nsa {
namespace {

class DetokenizerTest : public testing::Test {
 protected:
  std::string Run(const std::vector<int32_t>& tokens, bool at_text_start) const {
    IncrementalDetokenizer detokenizer(tokenizer_.get(), at_text_start);
    std::string text;
    for (const int32_t token : tokens) {
      const std::string piece = detokenizer.Push(token);
      EXPECT_TRUE(IsValidUtf8(piece));
      text += piece;
    }
    return text + detokenizer.Finish();
  }

  const std::unique_ptr<Tokenizer> tokenizer_ = MakeTinyTokenizer();
};

TEST_F(DetokenizerTest, RandomTokensGiveWhatDecodeGives) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    std::vector<int32_t> tokens(1 + random() % 20);
    for (int32_t& token : tokens) {
      // Byte tokens stand at the front of the vocabulary; drawn often, they form broken sequences.
      const uint32_t range = round % 2 == 0 ? tokenizer_->vocab_size() : 262;
      token = static_cast<int32_t>(random() % range);
    }
    const std::string text = Run(tokens, /*at_text_start=*/true);
    EXPECT_EQ(text, tokenizer_->Decode(tokens));
    EXPECT_TRUE(IsValidUtf8(text));
  }
}

TEST_F(DetokenizerTest, FirstTokenBehindAPromptKeepsItsSpace) {
  const std::vector<int32_t> tokens = *tokenizer_->Encode("the dog", false);
  EXPECT_EQ(Run(tokens, /*at_text_start=*/true), "the dog");
  EXPECT_EQ(Run(tokens, /*at_text_start=*/false), " the dog");
}

TEST_F(DetokenizerTest, ControlTokensDoNotUseUpTheTextStart) {
  std::vector<int32_t> tokens = *tokenizer_->Encode("the dog", true);
  ASSERT_EQ(tokens[0], tokenizer_->bos_token());
  EXPECT_EQ(Run(tokens, /*at_text_start=*/true), "the dog");
}

TEST_F(DetokenizerTest, OnlyOneLeadingSpaceIsDropped) {
  const std::vector<int32_t> tokens = *tokenizer_->Encode("  the", false);
  EXPECT_EQ(Run(tokens, /*at_text_start=*/true), "  the");
}

TEST_F(DetokenizerTest, BytesOfACodePointWaitForItsEnd) {
  const std::vector<int32_t> tokens = *tokenizer_->Encode("\xF0\x9F\xA6\x8A", false);
  ASSERT_GE(tokens.size(), 4u);
  IncrementalDetokenizer detokenizer(tokenizer_.get(), /*at_text_start=*/true);
  for (size_t i = 0; i + 1 < tokens.size(); ++i) EXPECT_EQ(detokenizer.Push(tokens[i]), "");
  EXPECT_TRUE(detokenizer.has_pending());
  EXPECT_EQ(detokenizer.Push(tokens.back()), "\xF0\x9F\xA6\x8A");
  EXPECT_FALSE(detokenizer.has_pending());
}

TEST_F(DetokenizerTest, WithoutALeadingSpaceTheFirstSpaceIsText) {
  const auto bare = MakeTinyTokenizer({.adds_leading_space = false});
  const std::vector<int32_t> tokens = *bare->Encode(" the", false);
  IncrementalDetokenizer detokenizer(bare.get(), /*at_text_start=*/true);
  std::string text;
  for (const int32_t token : tokens) text += detokenizer.Push(token);
  EXPECT_EQ(text, " the");
}

}  // namespace
}  // namespace nsa
