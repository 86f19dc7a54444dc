#include "tests/support/tiny_tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <utility>

#include "base/check.h"
#include "engine/text/sentencepiece_tokenizer.h"

namespace nsa {

// In tiny_tokenizer_model.cc.
std::string TrainTinyTokenizer(const std::string& model_type, bool adds_leading_space);

std::string TinyTokenizerModel(const TinyTokenizerOptions& options) {
  return TrainTinyTokenizer(options.model_type, options.adds_leading_space);
}

std::unique_ptr<Tokenizer> MakeTinyTokenizer(const TinyTokenizerOptions& options) {
  const std::string path = testing::TempDir() + "tiny_tokenizer." + options.model_type +
                           (options.adds_leading_space ? ".prefix" : ".bare") + ".model";
  std::ofstream(path, std::ios::binary) << TinyTokenizerModel(options);
  auto tokenizer = LoadSentencePieceTokenizer(path, options.add_bos);
  NSA_CHECK(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

}  // namespace nsa
