#pragma once
// JSON Schema -> grammar. docs/constrained_decoding.md says which outputs a schema gets.

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/constraint/constraint_spec.h"
#include "engine/constraint/json_fragments.h"
#include "engine/constraint/number_fragments.h"

namespace nsa::constraint {

// Used once. Every schema that is referred to, or used more than once, becomes one rule.
class SchemaCompiler {
 public:
  SchemaCompiler(Grammar* grammar, const ConstraintLimits& limits, absl::Time deadline)
      : grammar_(grammar), limits_(limits), deadline_(deadline), json_(grammar) {}

  // Adds the schema's values as the grammar's first rule. INVALID_ARGUMENT names the keyword's
  // pointer, or the limit.
  absl::Status Compile(std::string_view source);

 private:
  struct PendingRule {
    const Json* schema;
    std::string pointer;
    RuleId rule;
  };
  struct Ends {  // what is added lies between them
    StateId from;
    StateId to;
  };

  absl::Status Add(const Json& schema, const std::string& pointer, Ends ends);
  absl::Status AddReference(const Json& schema, const std::string& pointer, Ends ends);
  absl::Status AddConjunction(const Json& schema, const std::string& pointer, Ends ends);
  absl::Status AddDisjunction(const Json& schema, const std::string& pointer, Ends ends);
  absl::Status AddEnumeration(const Json& schema, const std::string& pointer, Ends ends);
  absl::Status AddTypes(const Json& schema, const std::string& pointer, Ends ends);
  absl::Status AddType(const std::string& type, const Json& schema, const std::string& pointer,
                       Ends ends);
  absl::Status AddString(const Json& schema, const std::string& pointer, Ends ends);
  absl::Status AddPattern(std::string_view regex, const std::string& pointer, Ends ends);
  absl::Status AddIntegerType(const Json& schema, const std::string& pointer, Ends ends);
  absl::Status AddNumberType(const Json& schema, const std::string& pointer, Ends ends);
  absl::Status AddArray(const Json& schema, const std::string& pointer, Ends ends);
  absl::Status AddObject(const Json& schema, const std::string& pointer, Ends ends);
  absl::Status AddMember(const std::string& key, const Json& schema, const std::string& pointer,
                         Ends ends);

  // The schema without $ref and allOf at its top.
  absl::StatusOr<Json> Flatten(const Json& schema, const std::string& pointer, int64_t depth);
  absl::StatusOr<const Json*> Resolve(const Json& schema, const std::string& pointer) const;
  // The rule of a schema that lives as long as the compiler.
  RuleId RuleOf(const Json* schema, const std::string& pointer);
  // The rule of a schema's content; the compiler keeps a copy.
  RuleId RuleOfContent(const Json& schema, const std::string& pointer);
  absl::Status CheckTime() const;

  Grammar* const grammar_;
  const ConstraintLimits limits_;
  const absl::Time deadline_;
  JsonFragments json_;
  Json root_;
  std::map<const Json*, RuleId> rules_;
  std::map<std::string, const Json*> contents_;  // by text
  std::vector<std::unique_ptr<Json>> copies_;
  std::vector<PendingRule> pending_;
};

}  // namespace nsa::constraint
