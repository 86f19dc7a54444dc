#pragma once
// Framing of server-sent events.

#include <string>
#include <string_view>

#include "server/http/http_message.h"

namespace nsa {

// "data: <data>\n\n". `data` holds no line break (JSON without indentation has none).
std::string SseEvent(std::string_view data);

inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";

// A comment, which clients skip; it keeps proxies from closing a silent stream.
inline constexpr std::string_view kSsePing = ": ping\n\n";

// 200 with the headers of an event stream that no proxy may buffer.
HttpResponse SseHead();

}  // namespace nsa
