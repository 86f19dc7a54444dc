#pragma once
// PreTokenizer: cuts a text into the words that byte-pair encoding works on.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/hf/pattern.h"
#include "engine/text/json_text.h"

namespace nsa::hf {

// What becomes of the matches of a pattern.
enum class SplitBehavior {
  kRemoved,
  kIsolated,
  kContiguous,  // neighbouring matches are one piece
  kMergedWithPrevious,
  kMergedWithNext,
};

// Immutable, so thread-safe.
class PreTokenizer {
 public:
  // `node`: the file's pre_tokenizer. Errors name the key.
  static absl::StatusOr<PreTokenizer> Parse(const JsonNode& node);

  // True if a text that begins with no space gets one in front.
  bool adds_leading_space() const { return adds_leading_space_; }

  using OnWord = std::function<absl::Status(std::string_view word)>;
  // Calls `on_word` for each word of `text` (valid UTF-8), left to right; words are views into it
  // and none is empty. Stops at the first error. Holds no list of words. INVALID_ARGUMENT: see
  // Pattern.
  absl::Status Split(std::string_view text, MatchState* state, const OnWord& on_word) const {
    return SplitFrom(/*step_idx=*/0, text, state, on_word);
  }

 private:
  struct Step {
    Pattern pattern;
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool is_inverted = false;
  };

  PreTokenizer() = default;
  absl::Status Add(const JsonNode& node, bool is_last);
  absl::Status AddByteLevel(const JsonNode& node);
  absl::Status AddSplit(const JsonNode& node);
  absl::Status AddDigits(const JsonNode& node);
  absl::Status SplitFrom(size_t step_idx, std::string_view text, MatchState* state,
                         const OnWord& on_word) const;

  std::vector<Step> steps_;
  bool adds_leading_space_ = false;
};

}  // namespace nsa::hf
