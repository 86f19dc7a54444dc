#pragma once
// SentencePieceModel: hides the SentencePiece library, whose header declares an absl::string_view
// of its own and so cannot meet Abseil's in one file. Standard types only.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nsa {

class SentencePieceModel {
 public:
  // Null if the bytes are not a SentencePiece model.
  static std::unique_ptr<SentencePieceModel> Parse(std::string_view serialized);
  ~SentencePieceModel();

  // Token ids of valid UTF-8, without special tokens. False if the library fails.
  bool Encode(std::string_view text, std::vector<int32_t>* tokens) const;
  // The bytes that a token adds inside a text; control tokens add nothing.
  std::string TokenBytes(int32_t token) const;
  // The token as the model spells it: "▁the", "<s>".
  std::string Spelling(int32_t token) const;
  bool IsControl(int32_t token) const;
  bool AddsLeadingSpace() const;
  int32_t vocab_size() const;
  int32_t bos_token() const;  // -1: none
  int32_t eos_token() const;  // -1: none

 private:
  struct Processor;
  explicit SentencePieceModel(std::unique_ptr<Processor> processor);
  std::unique_ptr<Processor> processor_;
};

}  // namespace nsa
