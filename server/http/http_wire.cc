#include "server/http/http_wire.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace nsa {
namespace {

struct StatusName {
  int status;
  absl::string_view phrase;
};
constexpr StatusName kStatusNames[] = {
    {200, "OK"},
    {204, "No Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {413, "Content Too Large"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
};

absl::string_view ReasonPhrase(int status) {
  for (const StatusName& name : kStatusNames) {
    if (name.status == status) return name.phrase;
  }
  return "Status";
}

void AppendFraming(const HttpResponse& response, BodyFraming framing, std::string* head) {
  switch (framing) {
    case BodyFraming::kLength:
      // 204 and 304 have no body by definition, and must not say so.
      if (response.status != 204 && response.status != 304) {
        absl::StrAppend(head, "Content-Length: ", response.body.size(), "\r\n");
      }
      return;
    case BodyFraming::kChunked:
      absl::StrAppend(head, "Transfer-Encoding: chunked\r\n");
      return;
    case BodyFraming::kToEof:
      return;
  }
}

// The bytes that %XX stands for; nothing if an escape is cut or not hexadecimal, or gives a NUL.
std::optional<std::string> PercentDecode(absl::string_view text) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    if (i + 2 >= text.size() || !absl::ascii_isxdigit(text[i + 1]) ||
        !absl::ascii_isxdigit(text[i + 2]) || text.substr(i + 1, 2) == "00") {
      return std::nullopt;
    }
    decoded += absl::HexStringToBytes(text.substr(i + 1, 2));
    i += 2;
  }
  return decoded;
}

}  // namespace

const std::string* HttpRequest::Header(const std::string& name) const {
  for (const auto& [key, value] : headers) {
    if (absl::EqualsIgnoreCase(key, name)) return &value;
  }
  return nullptr;
}

std::string FormatHead(const HttpResponse& response, const HeadOptions& options) {
  std::string head =
      absl::StrCat("HTTP/1.1 ", response.status, " ", ReasonPhrase(response.status), "\r\n");
  if (!response.content_type.empty()) {
    absl::StrAppend(&head, "Content-Type: ", response.content_type, "\r\n");
  }
  for (const auto& [name, value] : response.headers) {
    absl::StrAppend(&head, name, ": ", value, "\r\n");
  }
  AppendFraming(response, options.framing, &head);
  if (!options.keep_alive) {
    absl::StrAppend(&head, "Connection: close\r\n");
  } else if (options.http_1_0) {
    absl::StrAppend(&head, "Connection: keep-alive\r\n");
  }
  absl::StrAppend(&head, "Date: ",
                  absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", absl::Now(), absl::UTCTimeZone()),
                  "\r\nServer: nsa-serve\r\nx-request-id: ", options.request_id, "\r\n\r\n");
  return head;
}

std::string FormatChunk(absl::string_view data) {
  return absl::StrCat(absl::Hex(data.size()), "\r\n", data, "\r\n");
}

std::optional<Target> ParseTarget(absl::string_view target) {
  if (target == "*") return Target{"*", ""};
  if (absl::StartsWithIgnoreCase(target, "http://") ||
      absl::StartsWithIgnoreCase(target, "https://")) {
    const size_t authority = target.find("//") + 2;
    const size_t path = target.find('/', authority);
    if (path == authority) return std::nullopt;
    target = path == absl::string_view::npos ? "/" : target.substr(path);
  }
  const size_t question = target.find('?');
  const absl::string_view query =
      question == absl::string_view::npos ? "" : target.substr(question + 1);
  std::optional<std::string> path = PercentDecode(target.substr(0, question));
  if (!path.has_value() || path->empty() || path->front() != '/') return std::nullopt;
  return Target{*std::move(path), std::string(query)};
}

}  // namespace nsa
