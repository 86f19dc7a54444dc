#include "tests/support/tiny_tokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <utility>

#include "base/check.h"
#include "engine/text/sentencepiece_tokenizer.h"

namespace nsa {

std::unique_ptr<Tokenizer> MakeTinyTokenizer(const TinyTokenizerOptions& options) {
  // Tests run at the same time in processes of their own.
  const std::string path = testing::TempDir() + "tiny_tokenizer." + std::to_string(getpid());
  std::ofstream(path, std::ios::binary) << TinyTokenizerModel(options);
  auto tokenizer = LoadSentencePieceTokenizer(path, options.add_bos);
  NSA_CHECK(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

}  // namespace nsa
