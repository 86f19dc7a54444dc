#include "engine/text/sentencepiece_model.h"

#include <sentencepiece_processor.h>

#include <charconv>
#include <exception>
#include <utility>

namespace nsa {
namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581, SentencePiece's space

std::string SpacesRestored(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const bool is_space = piece.starts_with(kSpaceSymbol);
    text += is_space ? ' ' : piece[0];
    piece.remove_prefix(is_space ? kSpaceSymbol.size() : 1);
  }
  return text;
}

// "<0xE2>" -> one byte.
std::string ByteOf(std::string_view piece) {
  uint8_t byte = 0;
  if (piece.size() == 6) std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
  return std::string(1, static_cast<char>(byte));
}

}  // namespace

struct SentencePieceModel::Processor {
  sentencepiece::SentencePieceProcessor library;
};

std::unique_ptr<SentencePieceModel> SentencePieceModel::Parse(std::string_view serialized) {
  auto processor = std::make_unique<Processor>();
  // The library refuses most of what is wrong with a status, the rest with exceptions.
  try {
    if (!processor->library.LoadFromSerializedProto(serialized).ok()) return nullptr;
  } catch (const std::exception&) {
    return nullptr;
  }
  return std::unique_ptr<SentencePieceModel>(new SentencePieceModel(std::move(processor)));
}

SentencePieceModel::SentencePieceModel(std::unique_ptr<Processor> processor)
    : processor_(std::move(processor)) {}

SentencePieceModel::~SentencePieceModel() = default;

bool SentencePieceModel::Encode(std::string_view text, std::vector<int32_t>* tokens) const {
  return processor_->library.Encode(text, tokens).ok();
}

std::string SentencePieceModel::TokenBytes(int32_t token) const {
  const auto& library = processor_->library;
  if (library.IsControl(token)) return {};
  if (library.IsUnknown(token)) return library.DecodeIds({token});
  const std::string& piece = library.IdToPiece(token);
  return library.IsByte(token) ? ByteOf(piece) : SpacesRestored(piece);
}

std::string SentencePieceModel::Spelling(int32_t token) const {
  return processor_->library.IdToPiece(token);
}

bool SentencePieceModel::IsControl(int32_t token) const {
  return processor_->library.IsControl(token);
}

// The library does not tell its normalizer's settings; its behaviour does.
bool SentencePieceModel::AddsLeadingSpace() const {
  std::vector<std::string> pieces;
  return processor_->library.Encode(".", &pieces).ok() && !pieces.empty() &&
         pieces[0].starts_with(kSpaceSymbol);
}

int32_t SentencePieceModel::vocab_size() const { return processor_->library.GetPieceSize(); }
int32_t SentencePieceModel::bos_token() const { return processor_->library.bos_id(); }
int32_t SentencePieceModel::eos_token() const { return processor_->library.eos_id(); }

}  // namespace nsa
