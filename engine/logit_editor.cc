#include "engine/logit_editor.h"

#include <limits>

namespace nsa {

LogitEditor::LogitEditor(const LogitRules& rules, std::span<const int32_t> stop_token_ids,
                         std::span<const int32_t> prompt)
    : rules_(rules), stop_token_ids_(stop_token_ids.begin(), stop_token_ids.end()) {
  if (rules.repetition_penalty == 1) return;
  for (int32_t token : prompt) counts_[token].is_in_prompt = true;
}

void LogitEditor::Append(int32_t token) {
  ++num_generated_;
  if (rules_.HasPenalties()) ++counts_[token].num_generated;
}

bool LogitEditor::MayEdit(int64_t num_pending) const {
  return !rules_.bias.empty() || !counts_.empty() || (rules_.HasPenalties() && num_pending > 0) ||
         (num_generated_ + num_pending < rules_.min_tokens && !stop_token_ids_.empty());
}

void LogitEditor::WriteEdits(std::vector<LogitEdit>& edits) const {
  // Biases and held-back tokens are few; they are merged with the penalties by token.
  absl::flat_hash_map<int32_t, float> shifts;
  for (const LogitBias& bias : rules_.bias) shifts[bias.token] += bias.bias;
  if (num_generated_ < rules_.min_tokens) {
    for (int32_t token : stop_token_ids_) shifts[token] = -std::numeric_limits<float>::infinity();
  }
  for (const auto& [token, counts] : counts_) {
    LogitEdit edit = Penalty(token, counts);
    if (const auto shift = shifts.find(token); shift != shifts.end()) {
      edit.shift += shift->second;
      shifts.erase(shift);
    }
    edits.push_back(edit);
  }
  for (const auto& [token, shift] : shifts) edits.push_back({.token = token, .shift = shift});
}

LogitEdit LogitEditor::Penalty(int32_t token, const Counts& counts) const {
  LogitEdit edit{.token = token, .factor = rules_.repetition_penalty};
  if (counts.num_generated > 0) {
    edit.shift = -rules_.presence_penalty -
                 rules_.frequency_penalty * static_cast<float>(counts.num_generated);
  }
  return edit;
}

}  // namespace nsa
