#include "engine/text/chat_prompt.h"

#include <string>
#include <string_view>

#include "base/status.h"
#include "base/utf8.h"
#include "engine/text/token_matcher.h"

namespace nsa {
namespace {

// Breaks up control tokens in messages while the template runs. The byte occurs in no valid UTF-8,
// so taking it out again restores the content exactly.
constexpr char kBreak = '\xFF';

TokenMatcher MatcherOf(const Tokenizer& tokenizer) {
  TokenMatcher matcher;
  for (const ControlToken& control : tokenizer.control_tokens()) {
    matcher.Add(control.text, control.token);
  }
  return matcher;
}

std::string BreakControlTokens(std::string_view text, const TokenMatcher& matcher) {
  std::string broken;
  for (size_t i = 0; i < text.size(); ++i) {
    broken += text[i];
    const std::string_view rest = text.substr(i);
    // What follows the message could complete a token that it begins.
    if (matcher.LongestAt(rest).num_bytes > 1 || matcher.IsProperPrefix(rest)) broken += kBreak;
  }
  return broken;
}

std::string Unbroken(std::string_view text) {
  std::string restored(text);
  std::erase(restored, kBreak);
  return restored;
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
  const TokenMatcher matcher = MatcherOf(tokenizer);
  std::vector<ChatMessage> safe_messages;
  for (const ChatMessage& message : messages) {
    if (!IsValidUtf8(message.content) || !IsValidUtf8(message.role)) {
      return absl::InvalidArgumentError("a message is not valid UTF-8");
    }
    safe_messages.push_back(
        {BreakControlTokens(message.role, matcher), BreakControlTokens(message.content, matcher)});
  }
  NSA_ASSIGN_OR_RETURN(const std::string prompt, chat_template.Render(safe_messages));
  std::vector<int32_t> tokens;
  const std::string_view text = prompt;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const TokenMatcher::Match control = matcher.LongestAt(text.substr(i));
    if (control.token < 0) {
      ++i;
      continue;
    }
    NSA_RETURN_IF_ERROR(AppendText(text.substr(begin, i - begin), tokenizer, &tokens));
    tokens.push_back(control.token);
    i += control.num_bytes;
    begin = i;
  }
  NSA_RETURN_IF_ERROR(AppendText(text.substr(begin), tokenizer, &tokens));
  return tokens;
}

}  // namespace nsa
