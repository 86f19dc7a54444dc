#pragma once
// Chat messages -> token ids: renders the template and turns the control tokens it spells out
// ("<s>") into their ids.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace nsa {

// Control tokens count where the template puts them, never where a message's content spells one:
// a client cannot forge a turn. No further special tokens are added. Errors: those of
// ChatTemplate::Render and Tokenizer::Encode.
absl::StatusOr<std::vector<int32_t>> EncodeChat(const ChatTemplate& chat_template,
                                                const Tokenizer& tokenizer,
                                                const std::vector<ChatMessage>& messages);

}  // namespace nsa
