#pragma once
// The training half of tiny_tokenizer.h, in standard types only: SentencePiece's header declares an
// absl::string_view of its own and cannot meet Abseil's in one file.

#include <cstdint>
#include <string>
#include <vector>

namespace nsa {

struct TinyTokenizerOptions {
  std::string model_type = "bpe";          // or "unigram"
  std::string normalization = "identity";  // or "nmt_nfkc", "nfkc_cf"
  bool adds_leading_space = true;
  bool add_bos = true;
  bool byte_fallback = true;
  bool remove_extra_whitespaces = false;
  bool whitespace_as_suffix = false;
};

// BPE or unigram over a few English sentences; <unk> 0, <s> 1, </s> 2, the line
// break as a user-defined symbol, and a control token "<|turn|>".
std::string TinyTokenizerModel(const TinyTokenizerOptions& options);

// What the SentencePiece library makes of the text with this model: the reference.
std::vector<int32_t> LibraryEncode(const std::string& model, const std::string& text);
// What it decodes the tokens to.
std::string LibraryDecode(const std::string& model, const std::vector<int32_t>& tokens);

}  // namespace nsa
