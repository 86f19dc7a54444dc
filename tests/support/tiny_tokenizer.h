#pragma once
// A SentencePiece model trained on the spot: the real thing, small, with every feature that a Llama
// tokenizer has.

#include <memory>

#include "engine/text/tokenizer.h"
#include "tests/support/tiny_tokenizer_model.h"

namespace nsa {

// Loads TinyTokenizerModel through a file in the test's temporary folder.
std::unique_ptr<Tokenizer> MakeTinyTokenizer(const TinyTokenizerOptions& options = {});

}  // namespace nsa
