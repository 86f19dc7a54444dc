#include "engine/text/chat_template.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja/evaluator.h"
#include "engine/text/jinja/parser.h"

namespace nsa {

struct ChatTemplate::Program {
  jinja::Block block;
  std::string bos_token;
  std::string eos_token;
};

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Compile(std::string_view source,
                                                                    std::string bos_token,
                                                                    std::string eos_token) {
  absl::StatusOr<jinja::Block> block = jinja::Parse(source);
  if (!block.ok()) {
    return absl::Status(block.status().code(),
                        absl::StrCat("chat template, ", block.status().message()));
  }
  auto program = std::make_unique<Program>();
  program->block = *std::move(block);
  program->bos_token = std::move(bos_token);
  program->eos_token = std::move(eos_token);
  return std::unique_ptr<ChatTemplate>(new ChatTemplate(std::move(program)));
}

ChatTemplate::ChatTemplate(std::unique_ptr<Program> program) : program_(std::move(program)) {}

ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::string> ChatTemplate::Render(const std::vector<ChatMessage>& messages) const {
  using jinja::Value;
  Value::List list;
  for (const ChatMessage& message : messages) {
    list.push_back(
        Value(Value::Dict{{"role", Value(message.role)}, {"content", Value(message.content)}}));
  }
  Value::Dict variables{{"messages", Value(std::move(list))},
                        {"add_generation_prompt", Value(true)},
                        {"bos_token", Value(program_->bos_token)},
                        {"eos_token", Value(program_->eos_token)}};
  absl::StatusOr<std::string> prompt =
      jinja::Render(program_->block, std::move(variables), jinja::RenderLimits{});
  if (prompt.ok()) return prompt;
  return absl::Status(prompt.status().code(),
                      absl::StrCat("chat template: ", prompt.status().message()));
}

}  // namespace nsa
