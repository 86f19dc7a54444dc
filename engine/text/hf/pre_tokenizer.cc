#include "engine/text/hf/pre_tokenizer.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace nsa::hf {
namespace {

// GPT-2's words; what ByteLevel cuts with unless use_regex is false.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr size_t kMaxSteps = 32;  // one calls the next; public files have at most 7
constexpr std::string_view kSupportedTypes = "Sequence, Split, Digits and, last, ByteLevel";

// Makes pieces of the matches in a text and what lies between them.
class Splitter {
 public:
  // Where `is_inverted`, what lies between matches takes their part.
  Splitter(std::string_view text, SplitBehavior behavior, bool is_inverted,
           const PreTokenizer::OnWord& on_piece)
      : text_(text), behavior_(behavior), is_inverted_(is_inverted), on_piece_(on_piece) {}

  absl::Status AddMatch(TextRange match) {
    if (match.begin > end_) NSA_RETURN_IF_ERROR(Add({end_, match.begin}, is_inverted_));
    end_ = match.end;
    return Add(match, !is_inverted_);
  }
  absl::Status Finish() {
    const auto num_bytes = static_cast<int64_t>(text_.size());
    if (end_ < num_bytes) NSA_RETURN_IF_ERROR(Add({end_, num_bytes}, is_inverted_));
    return Flush();
  }

 private:
  absl::Status Add(TextRange range, bool is_match) {
    if (has_piece_ && IsJoined(is_match)) {
      piece_.end = range.end;
    } else {
      NSA_RETURN_IF_ERROR(Flush());
      piece_ = range;
      has_piece_ = behavior_ != SplitBehavior::kRemoved || !is_match;
    }
    last_is_match_ = is_match;
    return absl::OkStatus();
  }
  // Of a run of matches only the first joins the piece before it, and only the last the one behind.
  bool IsJoined(bool is_match) const {
    switch (behavior_) {
      case SplitBehavior::kContiguous:
        return last_is_match_ == is_match;
      case SplitBehavior::kMergedWithPrevious:
        return is_match && !last_is_match_;
      case SplitBehavior::kMergedWithNext:
        return last_is_match_ && !is_match;
      default:
        return false;
    }
  }
  absl::Status Flush() {
    if (!has_piece_ || piece_.begin == piece_.end) return absl::OkStatus();
    return on_piece_(text_.substr(piece_.begin, piece_.end - piece_.begin));
  }

  const std::string_view text_;
  const SplitBehavior behavior_;
  const bool is_inverted_;
  const PreTokenizer::OnWord& on_piece_;
  int64_t end_ = 0;    // of the last match
  TextRange piece_{};  // not yet given out: the next may join it
  bool has_piece_ = false;
  bool last_is_match_ = false;
};

absl::StatusOr<SplitBehavior> BehaviorOf(const JsonNode& node) {
  NSA_ASSIGN_OR_RETURN(const std::string name, node.String());
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  return node.Invalid("Removed, Isolated, Contiguous, MergedWithPrevious, MergedWithNext");
}

// A pattern's error with the key in front.
absl::StatusOr<Pattern> Located(absl::StatusOr<Pattern> pattern, const JsonNode& node) {
  if (pattern.ok()) return pattern;
  return absl::Status(pattern.status().code(),
                      absl::StrCat(node.path(), ": ", pattern.status().message()));
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const JsonNode& node) {
  PreTokenizer result;
  NSA_RETURN_IF_ERROR(result.Add(node, /*is_last=*/true));
  return result;
}

absl::Status PreTokenizer::Add(const JsonNode& node, bool is_last) {
  const JsonNode type_node = node.Member("type");
  if (node.is_absent() || type_node.is_absent()) return node.Unsupported(kSupportedTypes);
  NSA_ASSIGN_OR_RETURN(const std::string type, type_node.String());
  if (type == "Sequence") {
    NSA_ASSIGN_OR_RETURN(const auto nodes, node.Member("pretokenizers").Elements());
    if (nodes.empty() && is_last) return node.Unsupported(kSupportedTypes);
    for (size_t i = 0; i < nodes.size(); ++i) {
      NSA_RETURN_IF_ERROR(Add(nodes[i], is_last && i + 1 == nodes.size()));
    }
    return absl::OkStatus();
  }
  // Without the byte alphabet at the end the vocabulary means something else.
  if (is_last != (type == "ByteLevel")) return type_node.Unsupported(kSupportedTypes);
  if (steps_.size() == kMaxSteps) {
    return absl::UnimplementedError(
        absl::StrCat(node.path(), " is one too many; supported: ", kMaxSteps, " in all"));
  }
  if (type == "ByteLevel") return AddByteLevel(node);
  if (type == "Split") return AddSplit(node);
  if (type == "Digits") return AddDigits(node);
  return type_node.Unsupported(kSupportedTypes);
}

absl::Status PreTokenizer::AddByteLevel(const JsonNode& node) {
  const JsonNode prefix_node = node.Member("add_prefix_space");
  NSA_ASSIGN_OR_RETURN(adds_leading_space_, prefix_node.Bool(/*value_if_absent=*/true));
  // There every word would get a space.
  if (adds_leading_space_ && !steps_.empty()) return prefix_node.Unsupported("false behind others");
  NSA_ASSIGN_OR_RETURN(const bool uses_pattern, node.Member("use_regex").Bool(true));
  if (!uses_pattern) return absl::OkStatus();
  NSA_ASSIGN_OR_RETURN(Pattern pattern, Pattern::Compile(kByteLevelPattern));
  steps_.push_back({.pattern = std::move(pattern)});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddSplit(const JsonNode& node) {
  const JsonNode regex = node.Member("pattern").Member("Regex");
  const JsonNode literal = node.Member("pattern").Member("String");
  const JsonNode& source = regex.is_absent() ? literal : regex;
  if (source.is_absent()) return node.Member("pattern").Invalid("an object with Regex or String");
  NSA_ASSIGN_OR_RETURN(const std::string text, source.String());
  if (text.empty()) return source.Unsupported("a pattern that is not empty");
  NSA_ASSIGN_OR_RETURN(
      Pattern pattern,
      Located(regex.is_absent() ? Pattern::CompileLiteral(text) : Pattern::Compile(text), source));
  NSA_ASSIGN_OR_RETURN(const SplitBehavior behavior, BehaviorOf(node.Member("behavior")));
  NSA_ASSIGN_OR_RETURN(const bool is_inverted, node.Member("invert").Bool(false));
  steps_.push_back({std::move(pattern), behavior, is_inverted});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddDigits(const JsonNode& node) {
  NSA_ASSIGN_OR_RETURN(const bool is_individual, node.Member("individual_digits").Bool(false));
  NSA_ASSIGN_OR_RETURN(Pattern pattern, Pattern::Compile(is_individual ? R"(\p{N})" : R"(\p{N}+)"));
  steps_.push_back({.pattern = std::move(pattern)});
  return absl::OkStatus();
}

absl::Status PreTokenizer::SplitFrom(size_t step_idx, std::string_view text, MatchState* state,
                                     const OnWord& on_word) const {
  if (step_idx == steps_.size()) return text.empty() ? absl::OkStatus() : on_word(text);
  const Step& step = steps_[step_idx];
  const OnWord on_piece = [&](std::string_view piece) {
    return SplitFrom(step_idx + 1, piece, state, on_word);
  };
  Splitter splitter(text, step.behavior, step.is_inverted, on_piece);
  NSA_RETURN_IF_ERROR(step.pattern.ForEachMatch(
      text, state, [&](TextRange match) { return splitter.AddMatch(match); }));
  return splitter.Finish();
}

}  // namespace nsa::hf
