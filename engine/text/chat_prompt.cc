#include "engine/text/chat_prompt.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_replace.h"
#include "base/status.h"
#include "engine/text/utf8.h"

namespace nsa {
namespace {

// Breaks up control tokens in messages while the template runs. The byte occurs in no valid UTF-8,
// so taking it out again restores the content exactly.
constexpr char kBreak = '\xFF';

// Length of the longest proper prefix of `control` that `text` ends with.
size_t TrailingPrefix(std::string_view text, std::string_view control) {
  for (size_t length = std::min(control.size() - 1, text.size()); length > 0; --length) {
    if (text.ends_with(control.substr(0, length))) return length;
  }
  return 0;
}

std::string BreakControlTokens(std::string text, const Tokenizer& tokenizer) {
  for (const ControlToken& control : tokenizer.control_tokens()) {
    if (control.text.size() < 2) continue;
    std::string broken = control.text;
    broken.insert(1, 1, kBreak);
    text = absl::StrReplaceAll(text, {{control.text, broken}});
    // What follows the message could complete a token that it begins.
    while (const size_t length = TrailingPrefix(text, control.text)) {
      text.insert(text.size() - length + 1, 1, kBreak);
    }
  }
  return text;
}

std::string Unbroken(std::string_view text) {
  std::string restored(text);
  std::erase(restored, kBreak);
  return restored;
}

// The longest control token that `text` begins with, or null.
const ControlToken* ControlAt(std::string_view text, const Tokenizer& tokenizer) {
  const ControlToken* longest = nullptr;
  for (const ControlToken& control : tokenizer.control_tokens()) {
    const bool matches =
        !control.text.empty() && text.substr(0, control.text.size()) == control.text;
    if (matches && (longest == nullptr || control.text.size() > longest->text.size())) {
      longest = &control;
    }
  }
  return longest;
}

absl::Status AppendText(std::string_view text, const Tokenizer& tokenizer,
                        std::vector<int32_t>* tokens) {
  if (text.empty()) return absl::OkStatus();
  const std::string restored = Unbroken(text);
  NSA_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                       tokenizer.Encode(restored, /*add_special_tokens=*/false));
  tokens->insert(tokens->end(), ids.begin(), ids.end());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> EncodeChat(const ChatTemplate& chat_template,
                                                const Tokenizer& tokenizer,
                                                const std::vector<ChatMessage>& messages) {
  std::vector<ChatMessage> safe_messages;
  for (const ChatMessage& message : messages) {
    if (!IsValidUtf8(message.content) || !IsValidUtf8(message.role)) {
      return absl::InvalidArgumentError("a message is not valid UTF-8");
    }
    safe_messages.push_back({BreakControlTokens(message.role, tokenizer),
                             BreakControlTokens(message.content, tokenizer)});
  }
  NSA_ASSIGN_OR_RETURN(const std::string prompt, chat_template.Render(safe_messages));
  std::vector<int32_t> tokens;
  const std::string_view text = prompt;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const ControlToken* control = ControlAt(text.substr(i), tokenizer);
    if (control == nullptr) {
      ++i;
      continue;
    }
    NSA_RETURN_IF_ERROR(AppendText(text.substr(begin, i - begin), tokenizer, &tokens));
    tokens.push_back(control->token);
    i += control->text.size();
    begin = i;
  }
  NSA_RETURN_IF_ERROR(AppendText(text.substr(begin), tokenizer, &tokens));
  return tokens;
}

}  // namespace nsa
