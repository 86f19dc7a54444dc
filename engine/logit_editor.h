#pragma once
// LogitEditor: what a request's rules make of the logits of its next token.

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/request.h"
#include "kernels/logit_edits.h"

namespace nsa {

// Follows one sequence's tokens. Penalties are applied once per distinct token: repetition_penalty
// to those of the prompt and of the answer, presence and frequency penalties to those of the
// answer.
class LogitEditor {
 public:
  // `stop_token_ids` are those that min_tokens holds back.
  LogitEditor(const LogitRules& rules, std::span<const int32_t> stop_token_ids,
              std::span<const int32_t> prompt);

  // The next token of the answer.
  void Append(int32_t token);
  // Whether there may be edits for the token that follows num_pending unknown ones.
  bool MayEdit(int64_t num_pending) const;
  // Appends the edits of the next token's logits, each of another token, in no order.
  void WriteEdits(std::vector<LogitEdit>& edits) const;

 private:
  struct Counts {
    int64_t num_generated = 0;
    bool is_in_prompt = false;
  };
  LogitEdit Penalty(int32_t token, const Counts& counts) const;

  LogitRules rules_;
  std::vector<int32_t> stop_token_ids_;
  int64_t num_generated_ = 0;
  absl::flat_hash_map<int32_t, Counts> counts_;  // of the tokens that a penalty concerns
};

}  // namespace nsa
