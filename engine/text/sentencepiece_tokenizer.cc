#include "engine/text/sentencepiece_tokenizer.h"

#include <charconv>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/text/detokenizer.h"
#include "engine/text/sentencepiece/encoder.h"
#include "engine/text/sentencepiece/normalizer.h"
#include "engine/text/sentencepiece/vocabulary.h"
#include "engine/text/utf8.h"

namespace nsa {
namespace {

using sentencepiece::ModelType;
using sentencepiece::Normalizer;
using sentencepiece::Piece;
using sentencepiece::PieceType;
using sentencepiece::Segment;
using sentencepiece::Vocabulary;

std::string SpacesRestored(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const bool is_space = piece.starts_with(sentencepiece::kSpaceSymbol);
    text += is_space ? ' ' : piece[0];
    piece.remove_prefix(is_space ? sentencepiece::kSpaceSymbol.size() : 1);
  }
  return text;
}

// The bytes that a token adds inside a text.
std::string BytesOf(const Piece& piece, const Vocabulary& vocabulary) {
  switch (piece.type) {
    case PieceType::kControl:
      return {};
    case PieceType::kUnknown:
      return vocabulary.unknown_surface;
    case PieceType::kByte: {
      uint8_t byte = 0;  // "<0xE2>"
      std::from_chars(piece.text.data() + 3, piece.text.data() + 5, byte, 16);
      return std::string(1, static_cast<char>(byte));
    }
    default:
      return SpacesRestored(piece.text);
  }
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(Vocabulary vocabulary, Normalizer normalizer, bool add_bos)
      : vocabulary_(std::move(vocabulary)),
        normalizer_(std::move(normalizer)),
        unigram_(&vocabulary_),
        bos_token_(vocabulary_.ControlToken(vocabulary_.bos_piece)),
        eos_token_(vocabulary_.ControlToken(vocabulary_.eos_piece)),
        add_bos_(add_bos && bos_token_ >= 0) {
    for (const Piece& piece : vocabulary_.pieces) {
      if (piece.type == PieceType::kControl) {
        control_tokens_.push_back({piece.text, static_cast<int32_t>(token_bytes_.size())});
      }
      token_bytes_.push_back(BytesOf(piece, vocabulary_));
    }
  }

  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              bool add_special_tokens) const override;
  std::string Decode(const std::vector<int32_t>& tokens) const override;
  std::string TokenBytes(int32_t token) const override {
    return token >= 0 && token < vocab_size() ? token_bytes_[token] : std::string();
  }
  int32_t vocab_size() const override { return static_cast<int32_t>(token_bytes_.size()); }
  int32_t bos_token() const override { return bos_token_; }
  int32_t eos_token() const override { return eos_token_; }
  bool adds_leading_space() const override {
    return vocabulary_.normalizer.add_dummy_prefix && !vocabulary_.whitespace_as_suffix;
  }
  const std::vector<ControlToken>& control_tokens() const override { return control_tokens_; }

 private:
  const Vocabulary vocabulary_;
  const Normalizer normalizer_;
  const sentencepiece::UnigramEncoder unigram_;
  const int32_t bos_token_, eos_token_;
  const bool add_bos_;
  std::vector<std::string> token_bytes_;  // [vocab_size]
  std::vector<ControlToken> control_tokens_;
};

absl::StatusOr<std::vector<int32_t>> SentencePieceTokenizer::Encode(std::string_view text,
                                                                    bool add_special_tokens) const {
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("the text is not valid UTF-8");
  const std::string normalized = normalizer_.Normalize(text);
  const std::vector<Segment> segments =
      vocabulary_.model_type == ModelType::kBpe
          ? sentencepiece::EncodeBpe(vocabulary_, normalizer_.symbols(), normalized)
          : unigram_.Encode(normalized);
  std::vector<int32_t> tokens;
  if (add_special_tokens && add_bos_) tokens.push_back(bos_token_);
  bool follows_unknown = false;
  for (const Segment& segment : segments) {
    const bool is_unknown = segment.token == vocabulary_.unknown_token;
    if (is_unknown && vocabulary_.byte_fallback) {
      for (const char byte : segment.text) {
        tokens.push_back(vocabulary_.byte_tokens[static_cast<uint8_t>(byte)]);
      }
    } else if (!is_unknown || !follows_unknown) {  // a run of unknown characters is one token
      tokens.push_back(segment.token);
    }
    follows_unknown = is_unknown;
  }
  return tokens;
}

std::string SentencePieceTokenizer::Decode(const std::vector<int32_t>& tokens) const {
  IncrementalDetokenizer detokenizer(this, /*at_text_start=*/true);
  std::string text;
  for (const int32_t token : tokens) text += detokenizer.Push(token);
  return text + detokenizer.Finish();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Build(std::string_view file, bool add_bos) {
  NSA_ASSIGN_OR_RETURN(Vocabulary vocabulary, sentencepiece::ParseVocabulary(file));
  NSA_ASSIGN_OR_RETURN(Normalizer normalizer, Normalizer::Create(vocabulary));
  return std::make_unique<SentencePieceTokenizer>(std::move(vocabulary), std::move(normalizer),
                                                  add_bos);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePieceTokenizer(const std::string& path,
                                                                      bool add_bos) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path));
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Build(bytes, add_bos);
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(),
                      absl::StrCat(path, ": ", tokenizer.status().message()));
}

}  // namespace nsa
