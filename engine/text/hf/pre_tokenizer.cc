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
constexpr std::string_view kSupportedTypes = "Sequence, Split, Digits and, last, ByteLevel";

struct Piece {
  TextRange range;
  bool is_match;
};

std::vector<Piece> PiecesOf(std::string_view text, const std::vector<TextRange>& matches,
                            bool is_inverted) {
  std::vector<Piece> pieces;
  int64_t end = 0;
  for (const TextRange& match : matches) {
    if (match.begin > end) pieces.push_back({{end, match.begin}, is_inverted});
    pieces.push_back({match, !is_inverted});
    end = match.end;
  }
  const auto num_bytes = static_cast<int64_t>(text.size());
  if (end < num_bytes) pieces.push_back({{end, num_bytes}, is_inverted});
  return pieces;
}

// True if a piece and the one before it are one. Of a run of matches only the first joins the piece
// before it, and only the last the piece behind it.
bool IsJoined(const std::vector<Piece>& pieces, size_t i, SplitBehavior behavior) {
  const auto is_match = [&](size_t index) {
    return index < pieces.size() && pieces[index].is_match;
  };
  switch (behavior) {
    case SplitBehavior::kContiguous:
      return is_match(i - 1) == is_match(i);
    case SplitBehavior::kMergedWithPrevious:
      return is_match(i) && !is_match(i - 1);
    case SplitBehavior::kMergedWithNext:
      return is_match(i - 1) && !is_match(i);
    default:
      return false;
  }
}

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

void SplitAtMatches(std::string_view text, const std::vector<TextRange>& matches,
                    SplitBehavior behavior, bool is_inverted,
                    std::vector<std::string_view>* pieces) {
  const std::vector<Piece> found = PiecesOf(text, matches, is_inverted);
  for (size_t i = 0; i < found.size();) {
    TextRange range = found[i].range;
    const bool is_dropped = behavior == SplitBehavior::kRemoved && found[i].is_match;
    for (++i; i < found.size() && IsJoined(found, i, behavior); ++i) range.end = found[i].range.end;
    if (is_dropped || range.begin == range.end) continue;
    pieces->push_back(text.substr(range.begin, range.end - range.begin));
  }
}

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

absl::Status PreTokenizer::Split(std::string_view text, MatchState* state,
                                 std::vector<std::string_view>* words) const {
  words->clear();
  if (!text.empty()) words->push_back(text);
  std::vector<TextRange> matches;
  std::vector<std::string_view> pieces;
  for (const Step& step : steps_) {
    pieces.clear();
    for (const std::string_view word : *words) {
      NSA_RETURN_IF_ERROR(step.pattern.FindAll(word, state, &matches));
      SplitAtMatches(word, matches, step.behavior, step.is_inverted, &pieces);
    }
    words->swap(pieces);
  }
  return absl::OkStatus();
}

}  // namespace nsa::hf
