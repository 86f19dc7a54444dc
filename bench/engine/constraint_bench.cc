// What constrained decoding costs: compile time and sizes of typical and of the worst constraints,
// and per step one Advance and one FillMask. constraint_bench [vocab_size]
//   cold    each step of the first outputs of a constraint, masks not prepared but by the compiler
//   warm    the same outputs again
// One line per constraint; times are CPU times of one thread.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/constraint/constraint_compiler.h"
#include "tests/engine/constraint/vocabulary.h"

namespace nsa {
namespace {

constexpr int64_t kDefaultVocabSize = 128'256;
constexpr int kNumOutputs = 20;
constexpr int64_t kMaxTokens = 200;

struct Case {
  const char* name;
  ConstraintSpec spec;
};

constexpr char kPerson[] = R"({"type": "object", "properties": {"name": {"type": "string"},
  "age": {"type": "integer", "minimum": 0, "maximum": 150}, "email": {"type": "string", "format": "email"},
  "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 10},
  "address": {"type": "object", "properties": {"street": {"type": "string", "maxLength": 100},
  "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, "required": ["street"], "additionalProperties": false}},
  "required": ["name", "age"], "additionalProperties": false})";
constexpr char kTree[] =
    R"({"$defs": {"node": {"type": "object", "properties": {"value": {"type": "number"},
  "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "required": ["value", "children"],
  "additionalProperties": false}}, "$ref": "#/$defs/node"})";
constexpr char kTool[] =
    R"({"anyOf": [{"type": "object", "properties": {"tool": {"const": "search"},
  "query": {"type": "string", "minLength": 1}}, "required": ["tool", "query"], "additionalProperties": false},
  {"type": "object", "properties": {"tool": {"const": "answer"}, "text": {"type": "string"},
  "confidence": {"type": "number", "minimum": 0, "maximum": 1}}, "required": ["tool", "text"],
  "additionalProperties": false}]})";

ConstraintSpec Schema(std::string source) {
  return {.kind = ConstraintKind::kJsonSchema, .source = std::move(source)};
}
ConstraintSpec Regex(std::string source) {
  return {.kind = ConstraintKind::kRegex, .source = std::move(source)};
}

std::string WideObject() {
  std::string members;
  for (int i = 0; i < 200; ++i) {
    absl::StrAppend(&members, i == 0 ? "" : ", ", "\"field_", i, "\": {\"type\": \"string\"}");
  }
  return absl::StrCat(R"({"type": "object", "properties": {)", members,
                      R"(}, "additionalProperties": false})");
}

std::vector<Case> Cases() {
  return {{"json object", {.kind = ConstraintKind::kJsonObject}},
          {"person schema", Schema(kPerson)},
          {"recursive schema", Schema(kTree)},
          {"tool-call schema", Schema(kTool)},
          {"200 optional members", Schema(WideObject())},
          {"string <= 1000", Schema(R"({"type": "string", "maxLength": 1000})")},
          {"choice of 3", {.kind = ConstraintKind::kChoice, .choices = {"yes", "no", "maybe"}}},
          {"regex phone", Regex("\\+?[0-9]{1,3}[ -]?\\([0-9]{3}\\) [0-9]{3}-[0-9]{4}")},
          {"regex .*", Regex(".*")},
          {"worst: [a-z ]{0,3000}", Regex("[a-z ]{0,3000}")},
          {"worst: [^q]*", Regex("[^q]*")},
          {"worst: .*x.{40}", Regex("(?:.|x)*x.{40}")},
          {"worst: (a|b)*a(a|b){20}", Regex("(?:a|b)*a(?:a|b){20}")}};
}

struct Times {
  std::vector<double> us;
  double Quantile(double q) {
    if (us.empty()) return 0;
    std::sort(us.begin(), us.end());
    return us[std::min(us.size() - 1, static_cast<size_t>(q * static_cast<double>(us.size())))];
  }
};

// The same outputs for the same seed.
Times MeasureSteps(const std::shared_ptr<const CompiledConstraint>& constraint) {
  Times times;
  std::mt19937_64 random(1);
  std::vector<uint32_t> words(constraint->tokens().num_mask_words());
  std::vector<int32_t> allowed;
  for (int output = 0; output < kNumOutputs; ++output) {
    ConstraintState state(constraint);
    int32_t token = -1;
    for (int64_t i = 0; i < kMaxTokens && !state.has_ended(); ++i) {
      const absl::Time start = absl::Now();
      const bool advanced = token < 0 || state.Advance(token);
      NSA_CHECK(advanced);
      if (!state.FillMask(words).ok()) break;
      times.us.push_back(absl::ToDoubleMicroseconds(absl::Now() - start));
      if (state.has_ended()) break;
      allowed.clear();
      for (size_t word = 0; word < words.size(); ++word) {
        for (uint32_t bits = words[word]; bits != 0; bits &= bits - 1) {
          allowed.push_back(static_cast<int32_t>(word * 32) + __builtin_ctz(bits));
        }
      }
      NSA_CHECK(!allowed.empty());
      token = allowed[random() % allowed.size()];
    }
  }
  return times;
}

void Run(const Case& test, const std::shared_ptr<const TokenTable>& table) {
  ConstraintCompiler compiler(table, {}, int64_t{1} << 30);
  const absl::Time start = absl::Now();
  const auto compiled = compiler.Compile(test.spec);
  const double compile_ms = absl::ToDoubleMilliseconds(absl::Now() - start);
  if (!compiled.ok()) {
    std::printf("%-26s refused after %.0f ms: %s\n", test.name, compile_ms,
                std::string(compiled.status().message()).c_str());
    return;
  }
  Times cold = MeasureSteps(*compiled);
  Times warm = MeasureSteps(*compiled);
  std::printf("%-26s %7.1f %8ld %8ld %7.1f %6zu | %7.1f %7.1f %8.1f | %6.1f %6.1f %8.1f\n",
              test.name, compile_ms, static_cast<long>((*compiled)->num_grammar_states()),
              static_cast<long>((*compiled)->num_automaton_states()),
              static_cast<double>((*compiled)->memory_bytes()) / 1e6, cold.us.size(),
              cold.Quantile(0.5), cold.Quantile(0.99), cold.Quantile(1), warm.Quantile(0.5),
              warm.Quantile(0.99), warm.Quantile(1));
}

}  // namespace
}  // namespace nsa

int main(int argc, char** argv) {
  const int64_t vocab_size = argc > 1 ? std::atoll(argv[1]) : nsa::kDefaultVocabSize;
  const absl::Time start = absl::Now();
  const nsa::Vocabulary vocabulary(vocab_size);
  std::printf("vocabulary of %ld tokens, %zu trie nodes (%zu without text), built in %.0f ms\n",
              static_cast<long>(vocab_size), vocabulary.table->trie().nodes.size(),
              vocabulary.table->trie_without_text().nodes.size(),
              absl::ToDoubleMilliseconds(absl::Now() - start));
  std::printf("%-26s %7s %8s %8s %7s %6s | %7s %7s %8s | %6s %6s %8s\n", "constraint", "comp ms",
              "grammar", "states", "MB", "steps", "cold 50", "99 %", "max us", "warm", "99 %",
              "max us");
  for (const nsa::Case& test : nsa::Cases()) nsa::Run(test, vocabulary.table);
}
