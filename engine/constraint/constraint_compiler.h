#pragma once
// ConstraintCompiler: ConstraintSpec -> CompiledConstraint, the last ones kept.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/byte_budget.h"
#include "engine/constraint/compiled_constraint.h"
#include "engine/constraint/constraint_spec.h"
#include "engine/constraint/lru_cache.h"
#include "engine/constraint/token_table.h"

namespace nsa {

// Thread-safe. Compile takes up to max_compile_time: call it anywhere but on the step thread.
class ConstraintCompiler {
 public:
  using Compiled = absl::StatusOr<std::shared_ptr<const CompiledConstraint>>;

  // cache_bytes: of constraints that are kept for the next request; those in use live on. What a
  // kept constraint grows by is counted when the next one comes.
  ConstraintCompiler(std::shared_ptr<const TokenTable> tokens, const ConstraintLimits& limits,
                     int64_t cache_bytes, std::function<absl::Time()> clock = absl::Now);

  // Specs that are equal share one constraint, and are compiled once even if they come together.
  // INVALID_ARGUMENT: names the limit, or the place in the schema or expression; the same error is
  // given for a minute without another attempt. RESOURCE_EXHAUSTED: those in use have left too
  // little of max_total_bytes.
  Compiled Compile(const ConstraintSpec& spec) ABSL_LOCKS_EXCLUDED(mutex_);

  // What Compile gives at once: what is kept of an equal spec.
  std::optional<Compiled> Find(const ConstraintSpec& spec) ABSL_LOCKS_EXCLUDED(mutex_);

  int64_t num_cached() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Failure {
    absl::Status status;
    absl::Time until;  // a busy machine may be at fault, so it does not count for ever
  };

  Compiled CompileAnew(const ConstraintSpec& spec) const;
  std::optional<Compiled> Use(const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Compiled TakeMemory(Compiled made) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Keep(const std::string& key, const Compiled& made) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<const TokenTable> tokens_;
  const ConstraintLimits limits_;
  const std::shared_ptr<ByteBudget> memory_;  // of all that live
  const std::function<absl::Time()> clock_;   // for the age of failures
  mutable std::mutex mutex_;
  std::condition_variable compiled_;
  LruCache<std::shared_ptr<const CompiledConstraint>> constraints_ ABSL_GUARDED_BY(mutex_);
  LruCache<Failure> failures_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<std::string> in_progress_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nsa
