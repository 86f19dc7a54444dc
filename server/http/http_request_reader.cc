#include "server/http/http_request_reader.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/field.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/http/http_wire.h"
#include "server/request_id.h"

namespace nsa {
namespace {

namespace http = boost::beast::http;

std::string Text(boost::beast::string_view text) { return {text.data(), text.size()}; }

constexpr size_t kLastChunkBytes = 5;  // "0\r\n\r\n": no last chunk is shorter

// Of a chunk that the parser wants more of: it knows that it is the last one.
bool IsLastChunkBegun(std::string_view chunk) {
  return chunk.starts_with('0') && chunk.find('\n') != std::string_view::npos;
}

// A header that goes on in a second line, which readers disagree on (RFC 9112, 5.2).
bool HasFoldedLine(std::string_view head) {
  return head.find("\r\n ") != std::string_view::npos ||
         head.find("\r\n\t") != std::string_view::npos;
}

// The lines "Name: value" of a head that is not complete, or cannot be parsed; others are dropped.
HttpHeaders HeadersOf(const std::string& part_of_head) {
  HttpHeaders headers;
  const std::vector<std::string> lines = absl::StrSplit(part_of_head, "\r\n");
  for (size_t i = 1; i + 1 < lines.size(); ++i) {
    const std::string& line = lines[i];
    const size_t colon = line.find(':');
    const auto is_visible = [](unsigned char c) { return absl::ascii_isprint(c); };
    if (colon == std::string::npos || !std::all_of(line.begin(), line.end(), is_visible)) continue;
    headers.emplace_back(line.substr(0, colon), absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return headers;
}

}  // namespace

HttpRequestReader::State HttpRequestReader::Fail(int status, std::string message) {
  error_ = ProtocolError(status, std::move(message));
  keep_alive_ = false;
  is_head_ = request_.method == "HEAD";
  return State::kError;
}

HttpRequestReader::State HttpRequestReader::Parse() {
  if (error_.has_value()) return State::kError;
  if (!parser_.has_value()) {
    const State state = ParseHead();
    if (state == State::kError || state == State::kNeedMore) return state;
    if (SkipsBody()) {
      keep_alive_ = false;
      return State::kReady;
    }
    if (state == State::kContinueExpected) return state;
  }
  return ParseBody();
}

std::optional<size_t> HttpRequestReader::FindHeadEnd() {
  // A line may not end in a bare LF: such a head is handed to the parser at once, which refuses it.
  const size_t from = scanned_bytes_ < 3 ? 0 : scanned_bytes_ - 3;
  const size_t proper = input_.find("\r\n\r\n", from);
  const size_t bare = input_.find("\n\n", from);
  scanned_bytes_ = input_.size();
  if (proper == std::string::npos && bare == std::string::npos) return std::nullopt;
  if (proper < bare) return proper + 4;
  return bare + 2;
}

// kReady: the head is complete and acceptable.
HttpRequestReader::State HttpRequestReader::ParseHead() {
  // Blank lines in front of a request line are ignored (RFC 9112, 2.2).
  while (absl::StartsWith(input_, "\r\n")) input_.erase(0, 2);
  const std::optional<size_t> head_bytes = FindHeadEnd();
  if (head_bytes.value_or(input_.size()) > limits_.max_header_bytes) {
    return Fail(431, absl::StrCat("the request's headers are larger than ",
                                  limits_.max_header_bytes, " bytes, the limit"));
  }
  if (!head_bytes.has_value()) return State::kNeedMore;
  scanned_bytes_ = 0;
  if (HasFoldedLine({input_.data(), *head_bytes})) {
    return Fail(400, "malformed HTTP request: a header goes on in a second line");
  }
  parser_.emplace();
  parser_->eager(true);
  parser_->header_limit(static_cast<std::uint32_t>(*head_bytes + 1));
  parser_->body_limit(limits_.max_body_bytes);
  boost::beast::error_code error;
  parser_->put(boost::asio::buffer(input_.data(), *head_bytes), error);
  input_.erase(0, *head_bytes);
  CopyHead();
  if (error == http::error::body_limit) {
    return Fail(
        413, absl::StrCat("the body is larger than ", limits_.max_body_bytes, " bytes, the limit"));
  }
  if (error || !parser_->is_header_done()) {
    return Fail(400, absl::StrCat("malformed HTTP request: ", error.message()));
  }
  return CheckHead();
}

void HttpRequestReader::CopyHead() {
  const auto& message = parser_->get();
  request_.method = Text(message.method_string());
  for (const auto& field : message) {
    request_.headers.emplace_back(Text(field.name_string()), Text(field.value()));
  }
}

HttpRequestReader::State HttpRequestReader::CheckHead() {
  const auto& message = parser_->get();
  keep_alive_ = message.keep_alive();
  http_1_0_ = message.version() == 10;
  if (request_.headers.size() > limits_.max_headers) {
    return Fail(431, absl::StrCat("the request has ", request_.headers.size(),
                                  " headers; the limit is ", limits_.max_headers));
  }
  const std::optional<Target> target = ParseTarget(Text(message.target()));
  if (!target.has_value()) return Fail(400, "malformed request target");
  request_.path = target->path;
  request_.query = target->query;
  const auto num_hosts = message.count(http::field::host);
  if (num_hosts > 1 || (num_hosts == 0 && !http_1_0_)) {
    return Fail(400, absl::StrCat("a request needs one Host header, this one has ", num_hosts));
  }
  const std::string* length = request_.Header("Content-Length");
  if (message.count(http::field::content_length) > 1 ||
      message.count(http::field::transfer_encoding) > 1 ||
      (length != nullptr && !std::all_of(length->begin(), length->end(), absl::ascii_isdigit))) {
    return Fail(400, "Content-Length, a number, and Transfer-Encoding may each stand there once");
  }
  const std::string* encoding = request_.Header("Transfer-Encoding");
  if (encoding != nullptr && !absl::EqualsIgnoreCase(*encoding, "chunked")) {
    return Fail(501, "the only supported Transfer-Encoding is chunked");
  }
  if (encoding != nullptr && http_1_0_) {
    return Fail(400, "HTTP/1.0 has no Transfer-Encoding");
  }
  const std::string* expect = request_.Header("Expect");
  if (expect == nullptr || http_1_0_) return State::kReady;
  if (!absl::EqualsIgnoreCase(*expect, "100-continue")) {
    return Fail(417, "the only supported expectation is 100-continue");
  }
  return parser_->is_done() || !input_.empty() ? State::kReady : State::kContinueExpected;
}

bool HttpRequestReader::SkipsBody() const {
  return needs_body_ && !parser_->is_done() && !needs_body_(request_);
}

size_t HttpRequestReader::body_bytes() const {
  return parser_.has_value() ? parser_->get().body().size() + input_.size() : 0;
}

const HttpRequest& HttpRequestReader::head() {
  if (!parser_.has_value() && request_.headers.empty()) request_.headers = HeadersOf(input_);
  return request_;
}

HttpRequestReader::State HttpRequestReader::ParseBody() {
  while (!parser_->is_done() && input_.size() >= min_body_bytes_) {
    min_body_bytes_ = 1;
    boost::beast::error_code error;
    const size_t num_parsed = parser_->put(boost::asio::buffer(input_), error);
    input_.erase(0, num_parsed);
    if (error == http::error::need_more) {
      // What is left is a chunk header or trailer, which may not grow for ever.
      if (input_.size() > limits_.max_header_bytes) {
        return Fail(431, absl::StrCat("a chunk header or trailer is larger than ",
                                      limits_.max_header_bytes, " bytes, the limit"));
      }
      // Asked again about a last chunk, Beast asserts that a whole one could be there.
      if (IsLastChunkBegun(input_)) min_body_bytes_ = kLastChunkBytes;
      return State::kNeedMore;
    }
    if (error == http::error::body_limit) {
      return Fail(413, absl::StrCat("the body is larger than ", limits_.max_body_bytes,
                                    " bytes, the limit"));
    }
    if (error) return Fail(400, absl::StrCat("malformed HTTP body: ", error.message()));
  }
  return parser_->is_done() ? State::kReady : State::kNeedMore;
}

HttpRequest HttpRequestReader::Take() {
  request_id();
  HttpRequest request = std::exchange(request_, HttpRequest());
  request.body = std::move(parser_->get().body());
  is_head_ = request.method == "HEAD";
  parser_.reset();
  return request;
}

void HttpRequestReader::Abandon() {
  parser_.reset();
  input_ = std::string();
}

const std::string& HttpRequestReader::request_id() {
  if (request_.request_id.empty()) {
    const std::string* given = request_.Header("x-request-id");
    request_.request_id =
        given != nullptr && IsAcceptableRequestId(*given) ? *given : NewId("req-");
  }
  return request_.request_id;
}

}  // namespace nsa
