#include <string>

#include "base/check.h"
#include "server/http/http_request_reader.h"
#include "tests/fuzz/targets.h"

namespace nsa::fuzz {
namespace {

// All requests of a stream of bytes that arrives in pieces, up to the first that is refused.
std::string ReadInPieces(std::string_view bytes, size_t piece_bytes) {
  HttpRequestReader reader({.max_header_bytes = 1024, .max_body_bytes = 1024});
  std::string seen;
  while (!bytes.empty()) {
    const size_t num_bytes = std::min(bytes.size(), piece_bytes);
    reader.Append(bytes.substr(0, num_bytes));
    bytes.remove_prefix(num_bytes);
    auto state = reader.Parse();
    while (state == HttpRequestReader::State::kReady) {
      const HttpRequest request = reader.Take();
      NSA_CHECK_LE(request.body.size(), 1024U);
      seen += request.method + " " + request.path + " " + request.body + "|";
      state = reader.Parse();
    }
    if (state == HttpRequestReader::State::kError) {
      const int status = reader.error().status;
      NSA_CHECK(status >= 400 && status < 600) << status;
      return seen;
    }
  }
  return seen;
}

}  // namespace

// However the bytes are cut, they are the same requests. When a bad one is refused, and as what,
// may differ: Beast takes a chunk off the limit of the body each time that it looks at its
// extensions.
void HttpFraming(std::string_view input) {
  const std::string whole = ReadInPieces(input, input.size());
  NSA_CHECK_EQ(ReadInPieces(input, 1), whole);
  NSA_CHECK_EQ(ReadInPieces(input, 7), whole);
}

}  // namespace nsa::fuzz
