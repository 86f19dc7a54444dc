#include "engine/text/chat_template.h"

#include <string>

#include "tests/fuzz/targets.h"

namespace nsa::fuzz {
namespace {

std::vector<ChatMessage> MessagesOf(std::string_view lines) {
  std::vector<ChatMessage> messages;
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(lines.size(), line.size() + 1));
    const size_t colon = std::min(line.find(": "), line.size());
    messages.push_back({.role = std::string(line.substr(0, colon)),
                        .content = std::string(line.substr(std::min(line.size(), colon + 2)))});
  }
  return messages;
}

}  // namespace

void ChatTemplate(std::string_view input) {
  const auto [source, lines] = SplitInput(input);
  const auto compiled = nsa::ChatTemplate::Compile(source, "<s>", "</s>");
  if (compiled.ok()) (void)(*compiled)->Render(MessagesOf(lines));
}

}  // namespace nsa::fuzz
