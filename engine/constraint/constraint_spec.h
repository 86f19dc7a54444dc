#pragma once
// What an output must look like, as a client states it, and the limits under which it is compiled.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace nsa {

enum class ConstraintKind : uint8_t {
  kJsonObject,  // any JSON object
  kJsonSchema,  // JSON that a schema accepts; `source` is the schema's text
  kRegex,       // `source` matches the whole output
  kChoice,      // the output is one of `choices`
};

struct ConstraintSpec {
  ConstraintKind kind = ConstraintKind::kJsonObject;
  std::string source;
  std::vector<std::string> choices;
  bool operator==(const ConstraintSpec&) const = default;
};

// A spec that needs more is refused with INVALID_ARGUMENT, which names the limit; but for the last.
struct ConstraintLimits {
  int64_t max_source_bytes = int64_t{128} << 10;  // of source and choices together
  int64_t max_source_nesting = 64;                // brackets of a schema, groups of a regex
  int64_t max_grammar_states = 100'000;
  int64_t max_output_nesting = 64;      // free JSON containers and $ref uses inside each other
  int64_t max_parallel_states = 2'048;  // readings of one output that are open at once
  int64_t max_mask_work = 16'000;       // readings followed for one mask, at most
  int64_t max_cache_bytes = int64_t{64} << 20;  // automaton states and masks of one constraint
  absl::Duration max_compile_time = absl::Seconds(1);
  // Part of the compile time that may go into masks that no step has asked for yet.
  absl::Duration warm_up_time = absl::Milliseconds(250);
  // Of all constraints that are in use or kept. One more is refused with RESOURCE_EXHAUSTED; those
  // in use then grow no further.
  int64_t max_total_bytes = int64_t{1} << 30;
};

}  // namespace nsa
