#pragma once
// A SentencePiece model trained on the spot: the real thing, small, with every feature that a Llama
// tokenizer has.

#include <memory>
#include <string>

#include "engine/text/tokenizer.h"

namespace nsa {

struct TinyTokenizerOptions {
  std::string model_type = "bpe";  // or "unigram"
  bool adds_leading_space = true;
  bool add_bos = true;
};

// BPE or unigram over a few English sentences with byte fallback; <unk> 0, <s> 1, </s> 2, the line
// break as a user-defined symbol, and a control token "<|turn|>".
std::string TinyTokenizerModel(const TinyTokenizerOptions& options);

// Loads TinyTokenizerModel through a file in the test's temporary folder.
std::unique_ptr<Tokenizer> MakeTinyTokenizer(const TinyTokenizerOptions& options = {});

}  // namespace nsa
