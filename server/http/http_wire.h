#pragma once
// The text of HTTP/1.1: response heads, chunk framing and targets. No I/O.

#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/string_view.h"
#include "server/http/http_message.h"

namespace nsa {

enum class BodyFraming : uint8_t {
  kLength,   // Content-Length: the body is in the response
  kChunked,  // Transfer-Encoding: chunked
  kToEof,    // the body ends with the connection (HTTP/1.0 streams)
};

struct HeadOptions {
  BodyFraming framing = BodyFraming::kLength;
  bool keep_alive = true;
  bool http_1_0 = false;  // keep-alive has to be said
  std::string request_id;
};

// Status line and headers with the blank line.
std::string FormatHead(const HttpResponse& response, const HeadOptions& options);

// One chunk of a chunked body; `data` is not empty. The body ends with kLastChunk.
std::string FormatChunk(absl::string_view data);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

// Splits a request target (origin form, absolute form or "*") into a decoded path and a query;
// nothing if it is malformed.
struct Target {
  std::string path;
  std::string query;
};
std::optional<Target> ParseTarget(absl::string_view target);

}  // namespace nsa
