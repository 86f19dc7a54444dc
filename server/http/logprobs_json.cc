#include "server/http/logprobs_json.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "base/utf8.h"

namespace nsa {
namespace {

using Json = nlohmann::ordered_json;

bool IsContinuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

Json LogprobOf(std::optional<double> logprob) {
  return logprob.has_value() ? Json(*logprob) : Json(nullptr);
}

// Of two tokens with the same text the more likely one, which comes first, is kept.
Json TopByText(const TokenLogprob& token) {
  if (!token.logprob.has_value()) return nullptr;
  Json top = Json::object();
  for (const TokenLogprob::Alternative& other : token.top) {
    top.emplace(TokenText(other.bytes), other.logprob);
  }
  top.emplace(TokenText(token.bytes), *token.logprob);
  return top;
}

Json ByteList(std::string_view bytes) {
  Json list = Json::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return list;
}

// Both TokenLogprob and its Alternative have these three members.
template <typename Token>
Json ChatToken(const Token& token) {
  return {{"token", TokenText(token.bytes)},
          {"logprob", LogprobOf(token.logprob)},
          {"bytes", ByteList(token.bytes)}};
}

}  // namespace

std::string TokenText(std::string_view bytes) {
  if (IsValidUtf8(bytes)) return std::string(bytes);
  std::string text = "bytes:";
  for (const char byte : bytes) {
    absl::StrAppendFormat(&text, "\\x%02x", static_cast<unsigned char>(byte));
  }
  return text;
}

int64_t TextPosition::OffsetOf(std::string_view token_bytes) const {
  // A token that goes on with a character belongs to the one that its predecessor began.
  const bool continues = !token_bytes.empty() && IsContinuation(token_bytes[0]) && num_chars_ > 0;
  return continues ? num_chars_ - 1 : num_chars_;
}

void TextPosition::AddText(std::string_view text) {
  if (first_of_text_ == 0 && !text.empty()) first_of_text_ = text.front();
}

void TextPosition::Advance(std::string_view token_bytes) {
  if (is_at_start_ && !token_bytes.empty()) {
    is_at_start_ = false;
    if (token_bytes.front() == ' ' && first_of_text_ != ' ') token_bytes.remove_prefix(1);
  }
  for (const char byte : token_bytes) num_chars_ += IsContinuation(byte) ? 0 : 1;
}

Json CompletionLogprobs(std::span<const TokenLogprob> logprobs, TextPosition* position) {
  Json tokens = Json::array(), token_logprobs = Json::array(), top = Json::array(),
       offsets = Json::array();
  for (const TokenLogprob& token : logprobs) {
    tokens.push_back(TokenText(token.bytes));
    token_logprobs.push_back(LogprobOf(token.logprob));
    top.push_back(TopByText(token));
    offsets.push_back(position->OffsetOf(token.bytes));
    position->Advance(token.bytes);
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(token_logprobs)},
          {"top_logprobs", std::move(top)},
          {"text_offset", std::move(offsets)}};
}

Json ChatLogprobs(std::span<const TokenLogprob> logprobs) {
  Json content = Json::array();
  for (const TokenLogprob& token : logprobs) {
    Json entry = ChatToken(token);
    Json top = Json::array();
    for (const TokenLogprob::Alternative& other : token.top) top.push_back(ChatToken(other));
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

}  // namespace nsa
