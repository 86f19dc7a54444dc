// Speaks JSON lines for schema_property_test.py: a spec with documents in, whether each is accepted
// and some random outputs out.
//   {"kind": "schema" | "regex" | "object", "source": str, "accept": [str], "walks": n, "seed": n}
//   -> {"error": str} or {"accepted": [bool], "outputs": [str | null], "grammar_states": n,
//      "automaton_states": n, "compile_ms": x}

#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/constraint/constraint_compiler.h"
#include "tests/engine/constraint/vocabulary.h"

namespace nsa {
namespace {

using Json = nlohmann::json;

constexpr int64_t kVocabSize = 4000;
constexpr int64_t kMaxTokens = 1500;

ConstraintKind KindOf(const std::string& name) {
  if (name == "regex") return ConstraintKind::kRegex;
  return name == "schema" ? ConstraintKind::kJsonSchema : ConstraintKind::kJsonObject;
}

Json Answer(const Json& question, const Vocabulary& vocabulary, ConstraintCompiler* compiler) {
  const ConstraintSpec spec = {.kind = KindOf(question["kind"]), .source = question["source"]};
  const absl::Time start = absl::Now();
  const auto constraint = compiler->Compile(spec);
  const double compile_ms = absl::ToDoubleMilliseconds(absl::Now() - start);
  if (!constraint.ok()) {
    return {{"error", std::string(constraint.status().message())}, {"compile_ms", compile_ms}};
  }
  Json answer = {{"accepted", Json::array()}, {"outputs", Json::array()}};
  for (const std::string text : question["accept"]) {
    const bool by_bytes = Accepts(ConstraintState(*constraint), vocabulary, text);
    const bool by_tokens = Accepts(ConstraintState(*constraint), vocabulary, text, true);
    answer["accepted"].push_back(by_bytes == by_tokens ? Json(by_bytes) : Json("differs"));
  }
  std::mt19937_64 random(question["seed"].get<uint64_t>());
  for (int64_t i = 0; i < question["walks"].get<int64_t>(); ++i) {
    const auto output =
        RandomOutput(**constraint, ConstraintState(*constraint), &random, kMaxTokens);
    answer["outputs"].push_back(output ? Json(*output) : Json(nullptr));
  }
  answer["grammar_states"] = (*constraint)->num_grammar_states();
  answer["automaton_states"] = (*constraint)->num_automaton_states();
  answer["compile_ms"] = compile_ms;
  return answer;
}

}  // namespace
}  // namespace nsa

int main() {
  const nsa::Vocabulary vocabulary(nsa::kVocabSize);
  nsa::ConstraintCompiler compiler(vocabulary.table, {.warm_up_time = absl::Milliseconds(5)},
                                   int64_t{64} << 20);
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << nsa::Answer(nsa::Json::parse(line), vocabulary, &compiler).dump() << std::endl;
  }
}
