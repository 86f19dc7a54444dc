#pragma once
// Regular expressions: the syntax that ECMAScript and RE2 share. Literals, escapes (\d \w \s and
// their complements with ECMAScript's ranges, \n \r \t \f \v, \xHH, \uHHHH, \u{...}, \x{...}),
// classes, `.` (no line end), groups, alternation, * + ? {m} {m,} {m,n} and their lazy forms,
// `^` at the start and `$` at the end of an alternative outside of groups. All else is refused by
// name: back references, lookaround, \b, \p, flags, possessive quantifiers.

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/constraint/constraint_spec.h"
#include "engine/constraint/grammar.h"
#include "engine/constraint/text_fragments.h"

namespace nsa::constraint {

struct RegexNode {
  enum class Kind : uint8_t { kSet, kConcatenation, kAlternation, kRepeat };
  static constexpr int32_t kUnbounded = -1;

  Kind kind = Kind::kConcatenation;  // without children: the empty text
  CodePointSet set;                  // kSet
  int32_t min_count = 0;             // kRepeat of the only child
  int32_t max_count = 0;             // kUnbounded: without end
  std::vector<RegexNode> children;
};

// One of the alternatives outside of groups.
struct RegexAlternative {
  RegexNode node;
  bool starts_anchored = false;
  bool ends_anchored = false;
};

// INVALID_ARGUMENT names the construct and its byte offset.
absl::StatusOr<std::vector<RegexAlternative>> ParseRegex(std::string_view source,
                                                         int64_t max_nesting);

enum class RegexMatch : uint8_t { kWhole, kSearch };

// Adds what the expression matches. kSearch: a text that has a match somewhere, as JSON Schema's
// `pattern` means it.
void AddRegex(Grammar* grammar, const std::vector<RegexAlternative>& regex, RegexMatch match,
              TextEncoding encoding, StateId from, StateId to);

}  // namespace nsa::constraint
