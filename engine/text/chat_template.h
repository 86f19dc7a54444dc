#pragma once
// ChatTemplate: renders chat messages to a prompt with the Jinja template of tokenizer_config.json.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace nsa {

struct ChatMessage {
  std::string role;
  std::string content;
};

// A compiled template of the subset that public chat templates use (jinja/parser.h). Immutable and
// thread-safe.
class ChatTemplate {
 public:
  // INVALID_ARGUMENT names the construct and its line if the template uses what this subset lacks.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Compile(std::string_view source,
                                                               std::string bos_token,
                                                               std::string eos_token);
  ~ChatTemplate();

  // The prompt, ready for the assistant's answer (add_generation_prompt = true). INVALID_ARGUMENT:
  // the template raised an exception (for example on roles that do not alternate);
  // RESOURCE_EXHAUSTED: output over the limit.
  absl::StatusOr<std::string> Render(const std::vector<ChatMessage>& messages) const;

 private:
  struct Program;
  explicit ChatTemplate(std::unique_ptr<Program> program);
  std::unique_ptr<Program> program_;
};

}  // namespace nsa
