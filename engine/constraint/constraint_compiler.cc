#include "engine/constraint/constraint_compiler.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "engine/constraint/code_points.h"
#include "engine/constraint/json_fragments.h"
#include "engine/constraint/regex.h"
#include "engine/constraint/schema_compiler.h"
#include "engine/constraint/text_fragments.h"

namespace nsa {
namespace {

using constraint::Grammar;
using constraint::Rule;

constexpr int64_t kMaxFailureBytes = int64_t{4} << 20;  // of specs that cannot be compiled
constexpr absl::Duration kFailureAge = absl::Minutes(1);

std::string KeyOf(const ConstraintSpec& spec) {
  std::string key = absl::StrCat(static_cast<int>(spec.kind), ":", spec.source);
  // Lengths keep ("ab", "c") apart from ("a", "bc").
  for (const std::string& choice : spec.choices)
    absl::StrAppend(&key, "|", choice.size(), ":", choice);
  return key;
}

absl::Status CheckSize(const ConstraintSpec& spec, const ConstraintLimits& limits) {
  auto num_bytes = static_cast<int64_t>(spec.source.size());
  for (const std::string& choice : spec.choices) num_bytes += static_cast<int64_t>(choice.size());
  if (num_bytes <= limits.max_source_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the constraint has ", num_bytes,
                                                 " bytes, the limit is ", limits.max_source_bytes));
}

absl::Status AddChoices(const std::vector<std::string>& choices, Grammar* grammar) {
  if (choices.empty()) return absl::InvalidArgumentError("the list of choices is empty");
  for (size_t i = 0; i < choices.size(); ++i) {
    std::vector<uint32_t> code_points;
    if (!constraint::DecodeUtf8(choices[i], &code_points)) {
      return absl::InvalidArgumentError(absl::StrCat("choice ", i, " is not valid UTF-8"));
    }
  }
  const Rule root = grammar->rule(grammar->AddRule());
  constraint::AddAnyText(grammar, choices, root.start, root.accept);
  return absl::OkStatus();
}

absl::Status AddExpression(const std::string& source, const ConstraintLimits& limits,
                           Grammar* grammar) {
  NSA_ASSIGN_OR_RETURN(const auto regex, constraint::ParseRegex(source, limits.max_source_nesting));
  const Rule root = grammar->rule(grammar->AddRule());
  constraint::AddRegex(grammar, regex, constraint::RegexMatch::kWhole,
                       constraint::TextEncoding::kPlain, root.start, root.accept);
  return absl::OkStatus();
}

absl::Status AddSpec(const ConstraintSpec& spec, const ConstraintLimits& limits,
                     absl::Time deadline, Grammar* grammar) {
  switch (spec.kind) {
    case ConstraintKind::kJsonObject: {
      const Rule root = grammar->rule(grammar->AddRule());
      constraint::JsonFragments(grammar).AddAnyObject(root.start, root.accept);
      return absl::OkStatus();
    }
    case ConstraintKind::kJsonSchema:
      return constraint::SchemaCompiler(grammar, limits, deadline).Compile(spec.source);
    case ConstraintKind::kRegex:
      return AddExpression(spec.source, limits, grammar);
    case ConstraintKind::kChoice:
      return AddChoices(spec.choices, grammar);
  }
  return absl::InvalidArgumentError("unknown kind of constraint");
}

}  // namespace

ConstraintCompiler::ConstraintCompiler(std::shared_ptr<const TokenTable> tokens,
                                       const ConstraintLimits& limits, int64_t cache_bytes,
                                       std::function<absl::Time()> clock)
    : tokens_(std::move(tokens)),
      limits_(limits),
      memory_(std::make_shared<ByteBudget>(limits.max_total_bytes)),
      clock_(std::move(clock)),
      constraints_(cache_bytes, [](const auto& kept) { return kept->memory_bytes(); }),
      failures_(kMaxFailureBytes, [](const Failure& failure) {
        return static_cast<int64_t>(sizeof(Failure) + failure.status.message().size());
      }) {}

ConstraintCompiler::Compiled ConstraintCompiler::Compile(const ConstraintSpec& spec) {
  NSA_RETURN_IF_ERROR(CheckSize(spec, limits_));
  const std::string key = KeyOf(spec);
  std::unique_lock lock(mutex_);
  compiled_.wait(lock, [&] { return !in_progress_.contains(key); });
  if (auto kept = Use(key); kept.has_value()) return *kept;
  in_progress_.insert(key);
  lock.unlock();
  Compiled made = CompileAnew(spec);
  lock.lock();
  in_progress_.erase(key);
  compiled_.notify_all();
  made = TakeMemory(std::move(made));
  Keep(key, made);
  return made;
}

// What is kept and not in use makes room.
ConstraintCompiler::Compiled ConstraintCompiler::TakeMemory(Compiled made) {
  const auto is_unused = [](const auto& kept) { return kept.use_count() == 1; };
  while (made.ok() && !(*made)->TakeMemory()) {
    if (constraints_.EraseOldest(is_unused)) continue;
    return absl::ResourceExhaustedError(absl::StrCat(
        "the constraints of requests that wait or run, and this one of ", (*made)->memory_bytes(),
        " bytes, need more than ", limits_.max_total_bytes, " bytes, which is the limit"));
  }
  return made;
}

std::optional<ConstraintCompiler::Compiled> ConstraintCompiler::Find(const ConstraintSpec& spec) {
  const std::string key = KeyOf(spec);
  const std::lock_guard lock(mutex_);
  return Use(key);
}

// What is kept, which becomes the last used.
std::optional<ConstraintCompiler::Compiled> ConstraintCompiler::Use(const std::string& key) {
  if (const auto* constraint = constraints_.Find(key); constraint != nullptr) return *constraint;
  const Failure* failure = failures_.Find(key);
  if (failure == nullptr) return std::nullopt;
  if (clock_() < failure->until) return failure->status;
  failures_.Erase(key);
  return std::nullopt;
}

void ConstraintCompiler::Keep(const std::string& key, const Compiled& made) {
  if (made.ok()) return constraints_.Put(key, *made);
  if (absl::IsResourceExhausted(made.status())) return;  // another time there may be room
  failures_.Put(key, {.status = made.status(), .until = clock_() + kFailureAge});
}

ConstraintCompiler::Compiled ConstraintCompiler::CompileAnew(const ConstraintSpec& spec) const {
  const absl::Time deadline = absl::Now() + limits_.max_compile_time;
  Grammar grammar(limits_.max_grammar_states);
  NSA_RETURN_IF_ERROR(AddSpec(spec, limits_, deadline, &grammar));
  NSA_RETURN_IF_ERROR(grammar.Finish(limits_.max_output_nesting));
  return CompiledConstraint::Create(std::move(grammar), tokens_, limits_, deadline, memory_);
}

int64_t ConstraintCompiler::num_cached() const {
  const std::lock_guard lock(mutex_);
  return constraints_.num_entries();
}

}  // namespace nsa
