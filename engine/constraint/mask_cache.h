#pragma once
// MaskCache: for each state of an automaton the tokens that may come next, found when first asked
// for. Not thread-safe.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "engine/constraint/automaton.h"
#include "engine/constraint/token_table.h"

namespace nsa::constraint {

class MaskCache {
 public:
  // Both must outlive it. Past `max_bytes` of masks it forgets all of them and begins anew.
  MaskCache(Automaton* automaton, const TokenTable* tokens, int64_t max_bytes);

  // Writes the bits of the tokens that may follow, end-of-sequence tokens in accepting states;
  // words past the vocabulary become 0. False: the automaton failed, nothing was written.
  bool Fill(int32_t state, std::span<uint32_t> words);
  // True if Fill is a copy.
  bool is_ready(int32_t state) const {
    return static_cast<size_t>(state) < masks_.size() && masks_[state] != nullptr;
  }
  // Makes it one.
  bool Prepare(int32_t state) { return MaskOf(state) != nullptr; }

  // For the masks of up to `num_states`, as Automaton::Reserve.
  void Reserve(int32_t num_states) {
    text_steps_.reserve(num_states);
    masks_.reserve(num_states);
  }

  int64_t memory_bytes() const { return memory_bytes_; }

 private:
  // A mask is a ready mask of text tokens plus a list, or all its words.
  struct Mask {
    int32_t num_text_code_points = 0;
    std::vector<int32_t> tokens;
    std::vector<uint32_t> words;  // not empty: stands alone
  };
  // How a state takes one code point of TokenTable::IsText.
  struct TextStep {
    enum class Kind : uint8_t { kUnknown, kAll, kNone, kSome };
    Kind kind = Kind::kUnknown;
    absl::InlinedVector<int32_t, 4> next;  // kAll: the states reached
  };
  // The classes of the bytes at one place of a UTF-8 sequence.
  using ByteClasses = std::vector<int32_t>;

  const Mask* MaskOf(int32_t state);
  bool AppendTokens(const TokenTrie& trie, int32_t state, std::vector<int32_t>* tokens);
  bool AppendSubtree(const TokenTrie& trie, int32_t root, std::vector<int32_t>* tokens);
  // Text code points that surely can follow, up to the longest text token; -1: where the run ends
  // depends on the text.
  int32_t TextRun(int32_t state);
  const TextStep& TextStepOf(int32_t state);
  TextStep FindTextStep(int32_t state);

  Automaton* const automaton_;
  const TokenTable* const tokens_;
  const int64_t max_bytes_;
  std::vector<std::vector<ByteClasses>> text_sequences_;
  std::vector<TextStep> text_steps_;          // by state
  std::vector<std::unique_ptr<Mask>> masks_;  // by state
  std::vector<int32_t> path_;                 // states along a walk through the trie
  int64_t memory_bytes_ = 0;
};

}  // namespace nsa::constraint
