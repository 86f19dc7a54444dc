#include "tests/support/tiny_tokenizer_model.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <unordered_map>
#include <vector>

namespace nsa {
namespace {

class Sentences : public ::sentencepiece::SentenceIterator {
 public:
  bool done() const override { return next_ == sentences_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences_[next_]; }
  ::sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string> sentences_ = {
      "Once upon a time there was a little dog who lived in a house by the sea.",
      "The dog and the cat ran to the sea, and the cat said that it was cold.",
      "There was a king who had a ship, and the ship went over the sea to the north.",
      "What is the number of the house? The number of the house is 42.",
      "She said that the little ship had come home from the north at last.",
      "He asked: who was in the house when the king and the queen came home?",
      "Stop, said the queen, and the ship stopped; then it went on and on.",
      "user assistant system 0 1 2 3 4 5 6 7 8 9 [ ] < > / | { } _ = + - * \" ' ! ( )",
  };
  size_t next_ = 0;
};

}  // namespace

std::string TinyTokenizerModel(const TinyTokenizerOptions& options) {
  const auto flag = [](bool value) { return std::string(value ? "true" : "false"); };
  const std::unordered_map<std::string, std::string> arguments = {
      {"model_type", options.model_type},
      {"vocab_size", "420"},
      {"byte_fallback", flag(options.byte_fallback)},
      {"normalization_rule_name", options.normalization},
      {"remove_extra_whitespaces", flag(options.remove_extra_whitespaces)},
      {"add_dummy_prefix", flag(options.adds_leading_space)},
      {"treat_whitespace_as_suffix", flag(options.whitespace_as_suffix)},
      {"user_defined_symbols", "\n"},
      {"control_symbols", "<|turn|>"},
      {"hard_vocab_limit", "false"},
      {"num_threads", "1"},
      {"minloglevel", "2"},
  };
  Sentences sentences;
  std::string model;
  const auto status = ::sentencepiece::SentencePieceTrainer::Train(arguments, &sentences, &model);
  if (!status.ok()) {
    std::fprintf(stderr, "training the test tokenizer failed: %s\n", status.ToString().c_str());
    std::abort();
  }
  return model;
}

namespace {

void LoadOrDie(const std::string& model, ::sentencepiece::SentencePieceProcessor* processor) {
  if (processor->LoadFromSerializedProto(model).ok()) return;
  std::fprintf(stderr, "the library refuses the model\n");
  std::abort();
}

}  // namespace

std::vector<int32_t> LibraryEncode(const std::string& model, const std::string& text) {
  ::sentencepiece::SentencePieceProcessor processor;
  LoadOrDie(model, &processor);
  return processor.EncodeAsIds(text);
}

std::string LibraryDecode(const std::string& model, const std::vector<int32_t>& tokens) {
  ::sentencepiece::SentencePieceProcessor processor;
  LoadOrDie(model, &processor);
  return processor.DecodeIds(tokens);
}

}  // namespace nsa
