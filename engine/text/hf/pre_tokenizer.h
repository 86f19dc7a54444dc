#pragma once
// PreTokenizer: cuts a text into the words that byte-pair encoding works on.

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

// Appends the pieces of `text`, without empty ones. `matches` ascend and do not overlap. Where
// `is_inverted`, what lies between matches takes their part.
void SplitAtMatches(std::string_view text, const std::vector<TextRange>& matches,
                    SplitBehavior behavior, bool is_inverted,
                    std::vector<std::string_view>* pieces);

// Immutable, so thread-safe.
class PreTokenizer {
 public:
  // `node`: the file's pre_tokenizer. Errors name the key.
  static absl::StatusOr<PreTokenizer> Parse(const JsonNode& node);

  // True if a text that begins with no space gets one in front.
  bool adds_leading_space() const { return adds_leading_space_; }

  // Replaces `words` with the words of `text` (valid UTF-8), views into it. INVALID_ARGUMENT: see
  // Pattern.
  absl::Status Split(std::string_view text, MatchState* state,
                     std::vector<std::string_view>* words) const;

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

  std::vector<Step> steps_;
  bool adds_leading_space_ = false;
};

}  // namespace nsa::hf
