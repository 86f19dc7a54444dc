// The training half of tiny_tokenizer.h: SentencePiece's headers and Abseil's do not meet in one
// file (engine/text/sentencepiece_model.h).
#include <sentencepiece_trainer.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <unordered_map>
#include <vector>

namespace nsa {
namespace {

class Sentences : public sentencepiece::SentenceIterator {
 public:
  bool done() const override { return next_ == sentences_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

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

std::string TrainTinyTokenizer(const std::string& model_type, bool adds_leading_space) {
  const std::unordered_map<std::string, std::string> arguments = {
      {"model_type", model_type},
      {"vocab_size", "420"},
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", adds_leading_space ? "true" : "false"},
      {"user_defined_symbols", "\n"},
      {"control_symbols", "<|turn|>"},
      {"hard_vocab_limit", "false"},
      {"num_threads", "1"},
      {"minloglevel", "2"},
  };
  Sentences sentences;
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(arguments, &sentences, &model);
  if (!status.ok()) {
    std::fprintf(stderr, "training the test tokenizer failed: %s\n", status.ToString().c_str());
    std::abort();
  }
  return model;
}

}  // namespace nsa
