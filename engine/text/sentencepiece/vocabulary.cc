#include "engine/text/sentencepiece/vocabulary.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/text/sentencepiece/wire_reader.h"

namespace nsa::sentencepiece {
namespace {

constexpr int kNumByteValues = 256;

absl::Status Malformed() { return absl::InvalidArgumentError("not a SentencePiece model"); }

absl::StatusOr<Piece> ParsePiece(std::string_view message) {
  Piece piece;
  WireReader reader(message);
  while (reader.Next()) {
    if (reader.field() == 1) piece.text = reader.bytes();
    if (reader.field() == 2) piece.score = reader.fixed32();
    if (reader.field() == 3) {
      if (reader.varint() < 1 || reader.varint() > 6) return Malformed();
      piece.type = static_cast<PieceType>(reader.varint());
    }
  }
  if (reader.failed() || piece.text.empty() || !std::isfinite(piece.score)) return Malformed();
  return piece;
}

absl::Status ParseTrainerSpec(std::string_view message, Vocabulary* vocabulary) {
  uint64_t model_type = 1;
  WireReader reader(message);
  while (reader.Next()) {
    switch (reader.field()) {
      case 3:
        model_type = reader.varint();
        break;
      case 24:
        vocabulary->whitespace_as_suffix = reader.varint() != 0;
        break;
      case 35:
        vocabulary->byte_fallback = reader.varint() != 0;
        break;
      case 44:
        vocabulary->unknown_surface = reader.bytes();
        break;
      case 46:
        vocabulary->bos_piece = reader.bytes();
        break;
      case 47:
        vocabulary->eos_piece = reader.bytes();
        break;
      default:
        break;
    }
  }
  if (reader.failed()) return Malformed();
  if (model_type != 1 && model_type != 2) {
    return absl::UnimplementedError(
        absl::StrCat("model type ", model_type, "; supported: 1 (unigram), 2 (BPE)"));
  }
  vocabulary->model_type = static_cast<ModelType>(model_type);
  return absl::OkStatus();
}

absl::Status ParseNormalizerSpec(std::string_view message, NormalizerSpec* normalizer) {
  WireReader reader(message);
  while (reader.Next()) {
    if (reader.field() == 2) normalizer->charsmap = reader.bytes();
    if (reader.field() == 3) normalizer->add_dummy_prefix = reader.varint() != 0;
    if (reader.field() == 4) normalizer->remove_extra_whitespaces = reader.varint() != 0;
    if (reader.field() == 5) normalizer->escape_whitespaces = reader.varint() != 0;
  }
  return reader.failed() ? Malformed() : absl::OkStatus();
}

// "<0xE2>" -> 0xE2, or -1.
int ByteOf(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || !text.ends_with('>')) return -1;
  int byte = -1;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
  return error == std::errc() && end == text.data() + 5 ? byte : -1;
}

absl::Status IndexPiece(int32_t token, Vocabulary* vocabulary) {
  const Piece& piece = vocabulary->pieces[token];
  const bool is_text = piece.type == PieceType::kNormal || piece.type == PieceType::kUserDefined ||
                       piece.type == PieceType::kUnused;
  auto& index = is_text ? vocabulary->text_pieces : vocabulary->other_pieces;
  if (!index.emplace(piece.text, token).second) {
    return absl::InvalidArgumentError(absl::StrCat("token ", token, " repeats another one"));
  }
  if (piece.type == PieceType::kUnknown) {
    if (vocabulary->unknown_token >= 0) {
      return absl::InvalidArgumentError("more than one unknown token");
    }
    vocabulary->unknown_token = token;
  }
  if (piece.type == PieceType::kByte) {
    const int byte = ByteOf(piece.text);
    if (byte < 0) {
      return absl::InvalidArgumentError(absl::StrCat("token ", token, " is no byte"));
    }
    if (vocabulary->byte_fallback) vocabulary->byte_tokens[byte] = token;
  }
  return absl::OkStatus();
}

absl::Status BuildIndex(Vocabulary* vocabulary) {
  if (vocabulary->pieces.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return Malformed();
  }
  if (vocabulary->byte_fallback) vocabulary->byte_tokens.assign(kNumByteValues, -1);
  const auto num_pieces = static_cast<int32_t>(vocabulary->pieces.size());
  for (int32_t token = 0; token < num_pieces; ++token) {
    NSA_RETURN_IF_ERROR(IndexPiece(token, vocabulary));
  }
  if (vocabulary->unknown_token < 0) return absl::InvalidArgumentError("no unknown token");
  for (const int32_t token : vocabulary->byte_tokens) {
    if (token < 0) return absl::InvalidArgumentError("byte fallback without a token per byte");
  }
  return absl::OkStatus();
}

}  // namespace

int32_t Vocabulary::ControlToken(std::string_view text) const {
  const auto it = other_pieces.find(text);
  if (it == other_pieces.end() || pieces[it->second].type != PieceType::kControl) return -1;
  return it->second;
}

absl::StatusOr<Vocabulary> ParseVocabulary(std::string_view file) {
  Vocabulary vocabulary;
  WireReader reader(file);
  while (reader.Next()) {
    if (reader.field() == 1) {
      NSA_ASSIGN_OR_RETURN(Piece piece, ParsePiece(reader.bytes()));
      vocabulary.pieces.push_back(std::move(piece));
    } else if (reader.field() == 2) {
      NSA_RETURN_IF_ERROR(ParseTrainerSpec(reader.bytes(), &vocabulary));
    } else if (reader.field() == 3) {
      NSA_RETURN_IF_ERROR(ParseNormalizerSpec(reader.bytes(), &vocabulary.normalizer));
    }
  }
  if (reader.failed() || vocabulary.pieces.empty()) return Malformed();
  NSA_RETURN_IF_ERROR(BuildIndex(&vocabulary));
  return vocabulary;
}

}  // namespace nsa::sentencepiece
