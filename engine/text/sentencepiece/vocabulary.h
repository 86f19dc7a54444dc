#pragma once
// What a SentencePiece model file (tokenizer.model) holds, checked.
//
// The format is read here and not through the SentencePiece library: that library carries a copy of
// Protocol Buffers whose symbols collide with the real one, which gRPC brings into the same
// process.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"

namespace nsa::sentencepiece {

inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581 stands for a space

// Numbers as in the file.
enum class PieceType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

enum class ModelType : uint8_t { kUnigram = 1, kBpe = 2 };

struct Piece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::kNormal;
};

// normalizer_spec: how text is changed before it is split.
struct NormalizerSpec {
  std::string charsmap;  // precompiled rules; empty: none
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

struct Vocabulary {
  ModelType model_type = ModelType::kUnigram;
  NormalizerSpec normalizer;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  std::vector<Piece> pieces;  // by token id
  std::string unknown_surface = " \xE2\x81\x87 ";
  std::string bos_piece = "<s>", eos_piece = "</s>";

  // Derived from the pieces.
  std::unordered_map<std::string_view, int32_t>
      text_pieces;  // normal, user-defined and unused ones
  std::unordered_map<std::string_view, int32_t> other_pieces;  // control, unknown and byte ones
  int32_t unknown_token = -1;
  std::vector<int32_t> byte_tokens;  // [256] with byte_fallback, else empty

  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;  // the maps' keys point into `pieces`, whose elements stay
  Vocabulary& operator=(Vocabulary&&) = default;

  // The id of a text piece, or of the unknown piece.
  int32_t TokenOf(std::string_view text) const {
    const auto it = text_pieces.find(text);
    return it == text_pieces.end() ? unknown_token : it->second;
  }
  // The id of a control piece, or -1.
  int32_t ControlToken(std::string_view text) const;
};

// INVALID_ARGUMENT: not such a file, cut off, or one that contradicts itself; UNIMPLEMENTED: a
// model type other than unigram and BPE.
absl::StatusOr<Vocabulary> ParseVocabulary(std::string_view file);

}  // namespace nsa::sentencepiece
