#include "engine/text/hf/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/status.h"
#include "engine/text/hf/pattern_syntax.h"

namespace nsa::hf {
namespace {

constexpr int64_t kMaxPatternBytes = int64_t{64} << 10;
constexpr uint32_t kMaxNestedGroups = 50;
constexpr size_t kFirstStackBytes = size_t{32} << 10;
constexpr size_t kMaxStackBytes = size_t{1} << 20;
constexpr uint32_t kMaxSteps = 10'000'000;  // of one search; bounds nested repetitions
constexpr uint32_t kMaxHeapKib = 64 << 10;  // where there is no JIT
// PCRE2 counts steps anew at each place where a match may begin and does not count the characters
// of a plain repetition. So a search looks at this many places, and then the clock is asked.
constexpr int64_t kPlacesPerSearch = 256;
constexpr int64_t kSearchesPerClock = 64;

template <auto kFree>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};

template <typename T, auto kFree>
using Owned = std::unique_ptr<T, Freer<kFree>>;

}  // namespace

struct MatchState::Memory {
  Owned<pcre2_match_context, pcre2_match_context_free> context;
  Owned<pcre2_jit_stack, pcre2_jit_stack_free> stack;
  Owned<pcre2_match_data, pcre2_match_data_free> data;
};

MatchState::MatchState(absl::Time deadline)
    : deadline_(deadline), memory_(std::make_unique<Memory>()) {
  memory_->context.reset(pcre2_match_context_create(nullptr));
  memory_->stack.reset(pcre2_jit_stack_create(kFirstStackBytes, kMaxStackBytes, nullptr));
  memory_->data.reset(pcre2_match_data_create(/*ovecsize=*/1, nullptr));
  NSA_CHECK(memory_->context && memory_->stack && memory_->data) << "out of memory";
  pcre2_set_match_limit(memory_->context.get(), kMaxSteps);
  pcre2_set_heap_limit(memory_->context.get(), kMaxHeapKib);
  pcre2_jit_stack_assign(memory_->context.get(), nullptr, memory_->stack.get());
}

MatchState::~MatchState() = default;

bool MatchState::IsOverdue() {
  return ++num_searches_ % kSearchesPerClock == 0 && absl::Now() > deadline_;
}

struct Pattern::Code {
  Owned<pcre2_code, pcre2_code_free> compiled;
};

Pattern::Pattern(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

absl::StatusOr<Pattern> Pattern::Compile(std::string_view pattern) {
  if (static_cast<int64_t>(pattern.size()) > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the pattern has ", pattern.size(), " bytes; allowed: ", kMaxPatternBytes));
  }
  NSA_ASSIGN_OR_RETURN(const std::string translated, TranslatePattern(pattern));
  return CompileTranslated(translated);
}

absl::StatusOr<Pattern> Pattern::CompileLiteral(std::string_view text) {
  return CompileTranslated(LiteralPattern(text));
}

absl::StatusOr<Pattern> Pattern::CompileTranslated(std::string_view pattern) {
  const Owned<pcre2_compile_context, pcre2_compile_context_free> context(
      pcre2_compile_context_create(nullptr));
  NSA_CHECK(context != nullptr) << "out of memory";
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), kMaxNestedGroups);
  constexpr uint32_t kOptions =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_unique<Code>();
  code->compiled.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                     kOptions, &error, &offset, context.get()));
  if (code->compiled == nullptr) {
    std::array<PCRE2_UCHAR, 256> reason{};
    pcre2_get_error_message(error, reason.data(), reason.size());
    return absl::InvalidArgumentError(
        absl::StrCat("the pattern is not valid: ", reinterpret_cast<const char*>(reason.data())));
  }
  // Where there is no JIT for the machine, matching is slower and otherwise the same.
  pcre2_jit_compile(code->compiled.get(), PCRE2_JIT_COMPLETE);
  return Pattern(std::move(code));
}

absl::StatusOr<TextRange> Pattern::FindFrom(std::string_view text, int64_t begin,
                                            MatchState* state) const {
  const auto num_bytes = static_cast<int64_t>(text.size());
  auto& memory = *state->memory_;
  while (true) {
    const int64_t last_place = std::min(begin + kPlacesPerSearch, num_bytes);
    pcre2_set_offset_limit(memory.context.get(), static_cast<PCRE2_SIZE>(last_place));
    const int result = pcre2_match(code_->compiled.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                   text.size(), static_cast<PCRE2_SIZE>(begin), PCRE2_NO_UTF_CHECK,
                                   memory.data.get(), memory.context.get());
    if (state->IsOverdue() || (result < 0 && result != PCRE2_ERROR_NOMATCH)) {
      return absl::InvalidArgumentError(
          "the text takes the tokenizer's pattern too many steps; split it into parts");
    }
    if (result >= 0) {
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(memory.data.get());
      return TextRange{static_cast<int64_t>(range[0]), static_cast<int64_t>(range[1])};
    }
    if (last_place == num_bytes) return TextRange{-1, -1};
    begin = last_place + 1;
    while (begin < num_bytes && (text[begin] & 0xC0) == 0x80) ++begin;  // to a code point's start
  }
}

absl::Status Pattern::ForEachMatch(std::string_view text, MatchState* state,
                                   const OnMatch& on_match) const {
  int64_t begin = 0;
  int64_t last_end = -1;
  while (begin <= static_cast<int64_t>(text.size())) {
    NSA_ASSIGN_OR_RETURN(const TextRange match, FindFrom(text, begin, state));
    if (match.begin < 0) break;
    begin = match.end;
    if (match.begin == match.end && match.end == last_end) {
      ++begin;
      while (begin < static_cast<int64_t>(text.size()) && (text[begin] & 0xC0) == 0x80) ++begin;
    } else {
      last_end = match.end;
      NSA_RETURN_IF_ERROR(on_match(match));
    }
  }
  return absl::OkStatus();
}

}  // namespace nsa::hf
