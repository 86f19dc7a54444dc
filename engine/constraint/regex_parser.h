#pragma once
// The parser behind ParseRegex.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/constraint/regex.h"

namespace nsa::constraint {

// Used once. `source` must outlive it.
class RegexParser {
 public:
  RegexParser(std::string_view source, int64_t max_nesting)
      : source_(source), max_nesting_(max_nesting) {}

  absl::StatusOr<std::vector<RegexAlternative>> Parse();

 private:
  absl::StatusOr<RegexNode> ParseAlternation();
  absl::StatusOr<RegexNode> ParseConcatenation();
  absl::StatusOr<RegexNode> ParseAtom();
  absl::StatusOr<RegexNode> ParseGroup();
  absl::Status ParseQuantifiers(RegexNode* atom);
  absl::StatusOr<RegexNode> ParseCounts(RegexNode atom);
  absl::StatusOr<int32_t> ParseCount();
  absl::StatusOr<CodePointSet> ParseClass();
  // One member of a class; several code points (\d) cannot start a range.
  absl::StatusOr<CodePointSet> ParseClassMember();
  absl::StatusOr<CodePointSet> ParseEscape();
  absl::StatusOr<uint32_t> ParseHex(size_t num_digits);

  bool AtEnd() const { return position_ >= code_points_.size(); }
  // 0 at the end, which no expression holds otherwise.
  uint32_t Peek(size_t ahead = 0) const;
  bool Take(uint32_t code_point);
  absl::Status Refuse(std::string_view what) const;

  const std::string_view source_;
  const int64_t max_nesting_;
  int64_t nesting_ = 0;
  std::vector<uint32_t> code_points_;
  size_t position_ = 0;
};

}  // namespace nsa::constraint
