#pragma once
// Pattern: the regular expressions of tokenizer.json. Hides PCRE2.

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace nsa::hf {

struct TextRange {
  int64_t begin, end;  // bytes
};

// What matching in one text may take, and the memory it needs. For one thread.
class MatchState {
 public:
  // No matching goes on past `deadline` (by more than moments).
  explicit MatchState(absl::Time deadline);
  ~MatchState();

 private:
  friend class Pattern;
  struct Memory;

  bool IsOverdue();

  absl::Time deadline_;
  int64_t num_searches_ = 0;
  std::unique_ptr<Memory> memory_;
};

// Immutable, so thread-safe.
class Pattern {
 public:
  // `pattern` in Oniguruma's syntax. UNIMPLEMENTED names what is not supported; INVALID_ARGUMENT:
  // no pattern, with the reason.
  static absl::StatusOr<Pattern> Compile(std::string_view pattern);
  static absl::StatusOr<Pattern> CompileLiteral(std::string_view text);
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  using OnMatch = std::function<absl::Status(TextRange)>;
  // Calls `on_match` for each match in `text` (valid UTF-8), left to right; an empty one right
  // behind another is left out. Stops at the first error. INVALID_ARGUMENT: the search needs too
  // many steps or too much time. `on_match` may use `state`.
  absl::Status ForEachMatch(std::string_view text, MatchState* state,
                            const OnMatch& on_match) const;

 private:
  struct Code;
  explicit Pattern(std::unique_ptr<Code> code);
  static absl::StatusOr<Pattern> CompileTranslated(std::string_view pattern);
  // The first match from `begin` on, {-1, -1} if there is none.
  absl::StatusOr<TextRange> FindFrom(std::string_view text, int64_t begin, MatchState* state) const;

  std::unique_ptr<Code> code_;
};

}  // namespace nsa::hf
