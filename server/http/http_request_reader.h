#pragma once
// HttpRequestReader: bytes of a connection in, complete requests out. No I/O. Refuses what is
// malformed, ambiguous (Content-Length with Transfer-Encoding) or over the limits.

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "server/http/errors.h"
#include "server/http/http_message.h"

namespace nsa {

class HttpRequestReader {
 public:
  struct Limits {
    size_t max_header_bytes = 0;  // request line, headers and the blank line
    size_t max_body_bytes = 0;    // after the removal of chunk framing
    size_t max_headers = 128;
  };
  // Asked once the head of a request is there that has a body. False: the body is not read, the
  // request is complete without it, and nothing more can be read from this connection.
  using NeedsBody = std::function<bool(const HttpRequest& head)>;
  enum class State : uint8_t {
    kNeedMore,          // the request is not complete
    kContinueExpected,  // once: the client waits for "100 Continue" before it sends the body
    kReady,             // Take() gives the request
    kError,             // error() says why; nothing more can be read from this connection
  };
  explicit HttpRequestReader(Limits limits, NeedsBody needs_body = nullptr)
      : limits_(limits), needs_body_(std::move(needs_body)) {}

  void Append(std::string_view bytes) { input_ += bytes; }
  State Parse();

  // No byte of the next request has been seen.
  bool empty() const { return !parser_.has_value() && input_.empty(); }
  size_t buffered_bytes() const { return input_.size(); }
  // Of the body that is being read, with what is not parsed yet.
  size_t body_bytes() const;
  // What is known of the request that is being read: its head, or those lines of it that have
  // arrived.
  const HttpRequest& head();

  // After kReady: the request; the reader goes on to the next one. Bytes that came behind stay.
  HttpRequest Take();
  // Gives up what has been read; to be called when nothing more will be parsed.
  void Abandon();
  const HttpError& error() const { return *error_; }

  // Of the request whose head was read last.
  bool keep_alive() const { return keep_alive_; }
  bool http_1_0() const { return http_1_0_; }
  bool is_head() const { return is_head_; }
  // Of the request that is being read: the client's, or a new one where the head gave none that is
  // acceptable.
  const std::string& request_id();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  State Fail(int status, std::string message);
  // Finds the end of the head in input_; nothing if it is not there yet.
  std::optional<size_t> FindHeadEnd();
  State ParseHead();
  void CopyHead();
  State CheckHead();
  bool SkipsBody() const;
  State ParseBody();

  const Limits limits_;
  const NeedsBody needs_body_;
  std::string input_;          // not yet parsed
  size_t scanned_bytes_ = 0;   // of input_, without the end of a head
  size_t min_body_bytes_ = 1;  // of input_, before the parser is asked to go on with a body
  std::optional<Parser> parser_;
  HttpRequest request_;
  std::optional<HttpError> error_;
  bool keep_alive_ = false;
  bool http_1_0_ = false;
  bool is_head_ = false;
};

}  // namespace nsa
