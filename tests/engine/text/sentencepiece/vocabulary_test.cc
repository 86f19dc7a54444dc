#include "engine/text/sentencepiece/vocabulary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "engine/text/sentencepiece/encoder.h"
#include "engine/text/sentencepiece/normalizer.h"
#include "tests/support/tiny_tokenizer.h"

namespace nsa::sentencepiece {
namespace {

using testing::HasSubstr;

// A length-delimited field.
std::string Bytes(int field, const std::string& bytes) {
  return std::string(1, static_cast<char>(field << 3 | 2)) + static_cast<char>(bytes.size()) +
         bytes;
}
std::string Varint(int field, char value) {
  const int tag = field << 3;
  std::string bytes;
  if (tag >= 0x80) {
    bytes = {static_cast<char>((tag & 0x7F) | 0x80), static_cast<char>(tag >> 7)};
  } else {
    bytes = std::string(1, static_cast<char>(tag));
  }
  return bytes + value;
}
std::string PieceField(const std::string& text, PieceType type) {
  return Bytes(1, Bytes(1, text) + Varint(3, static_cast<char>(type)));
}

const std::string& UnknownPiece() {
  static const auto* const piece = new std::string(PieceField("<unk>", PieceType::kUnknown));
  return *piece;
}

std::string Refusal(const std::string& file) {
  return std::string(ParseVocabulary(file).status().message());
}

TEST(VocabularyTest, ReadsPiecesAndSettings) {
  const auto vocabulary =
      ParseVocabulary(UnknownPiece() + PieceField("<s>", PieceType::kControl) +
                      PieceField("ab", PieceType::kNormal) + Bytes(2, Varint(3, 2)) +
                      Bytes(3, Varint(3, 0) + Varint(4, 0)));
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_EQ(vocabulary->model_type, ModelType::kBpe);
  EXPECT_FALSE(vocabulary->normalizer.add_dummy_prefix);
  EXPECT_FALSE(vocabulary->normalizer.remove_extra_whitespaces);
  EXPECT_TRUE(vocabulary->normalizer.escape_whitespaces);
  EXPECT_EQ(vocabulary->unknown_token, 0);
  EXPECT_EQ(vocabulary->ControlToken("<s>"), 1);
  EXPECT_EQ(vocabulary->ControlToken("ab"), -1);
  EXPECT_EQ(vocabulary->TokenOf("ab"), 2);
  EXPECT_EQ(vocabulary->TokenOf("<s>"), 0);
}

TEST(VocabularyTest, ContradictionsAreNamed) {
  EXPECT_EQ(Refusal(""), "not a SentencePiece model");
  EXPECT_EQ(Refusal("hello"), "not a SentencePiece model");
  EXPECT_EQ(Refusal(PieceField("a", PieceType::kNormal)), "no unknown token");
  EXPECT_EQ(Refusal(UnknownPiece() + PieceField("?", PieceType::kUnknown)),
            "more than one unknown token");
  EXPECT_EQ(Refusal(UnknownPiece() + PieceField("a", PieceType::kNormal) +
                    PieceField("a", PieceType::kUserDefined)),
            "token 2 repeats another one");
  EXPECT_EQ(Refusal(UnknownPiece() + PieceField("x41", PieceType::kByte)), "token 1 is no byte");
  EXPECT_EQ(Refusal(UnknownPiece() + Bytes(2, Varint(35, 1))),
            "byte fallback without a token per byte");
  EXPECT_EQ(Refusal(UnknownPiece() + PieceField("", PieceType::kNormal)),
            "not a SentencePiece model");
  EXPECT_EQ(Refusal(UnknownPiece() + Bytes(1, Bytes(1, "a") + Varint(3, 9))),
            "not a SentencePiece model");
  const absl::Status word = ParseVocabulary(UnknownPiece() + Bytes(2, Varint(3, 3))).status();
  EXPECT_EQ(word.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(word.message()), HasSubstr("model type 3"));
}

// Parses, and if that works uses, whatever the bytes are; must neither crash nor read out of
// bounds.
void Use(const std::string& file) {
  const auto vocabulary = ParseVocabulary(file);
  if (!vocabulary.ok()) return;
  const auto normalizer = Normalizer::Create(*vocabulary);
  if (!normalizer.ok()) return;
  const std::string text = normalizer->Normalize("The \xEF\xAC\x81sh  went\t over\xF0\x9F\xA6\x8A");
  EncodeBpe(*vocabulary, normalizer->symbols(), text);
  UnigramEncoder(&*vocabulary).Encode(text);
}

TEST(VocabularyTest, EveryTruncationIsSafe) {
  const std::string model = TinyTokenizerModel({});
  for (size_t length = 0; length < model.size(); length += 7) Use(model.substr(0, length));
}

TEST(VocabularyTest, DamagedFilesAreSafe) {
  std::mt19937 random(1);
  const std::string model =
      TinyTokenizerModel({.model_type = "unigram", .normalization = "nmt_nfkc"});
  for (int round = 0; round < 150; ++round) {
    std::string damaged = model;
    for (size_t i = 1 + random() % 64; i > 0; --i) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    Use(damaged);
  }
}

}  // namespace
}  // namespace nsa::sentencepiece
