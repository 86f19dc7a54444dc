#pragma once
// ConstraintCompiler: ConstraintSpec -> CompiledConstraint, the last ones kept.

#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "engine/constraint/compiled_constraint.h"
#include "engine/constraint/constraint_spec.h"
#include "engine/constraint/token_table.h"

namespace nsa {

// Thread-safe. Compile takes up to max_compile_time: call it anywhere but on the step thread.
class ConstraintCompiler {
 public:
  // cache_bytes: of constraints that are kept for the next request; those in use live on. What a
  // kept constraint grows by is counted when the next one comes.
  ConstraintCompiler(std::shared_ptr<const TokenTable> tokens, const ConstraintLimits& limits,
                     int64_t cache_bytes);

  // Specs that are equal share one constraint, and are compiled once even if they come together.
  // INVALID_ARGUMENT: names the limit, or the place in the schema or expression.
  absl::StatusOr<std::shared_ptr<const CompiledConstraint>> Compile(const ConstraintSpec& spec)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // What Compile gives at once: the kept constraint of an equal spec, or null.
  std::shared_ptr<const CompiledConstraint> Find(const ConstraintSpec& spec)
      ABSL_LOCKS_EXCLUDED(mutex_);

  int64_t num_cached() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    std::string key;
    std::shared_ptr<const CompiledConstraint> constraint;
  };
  using Entries = std::list<Entry>;  // the last used first

  absl::StatusOr<std::shared_ptr<const CompiledConstraint>> CompileAnew(
      const ConstraintSpec& spec) const;
  std::shared_ptr<const CompiledConstraint> Use(const std::string& key)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Keep(const std::string& key, std::shared_ptr<const CompiledConstraint> constraint)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<const TokenTable> tokens_;
  const ConstraintLimits limits_;
  const int64_t cache_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable compiled_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, Entries::iterator> by_key_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<std::string> in_progress_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nsa
