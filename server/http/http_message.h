#pragma once
// What an endpoint sees of HTTP: a complete request, and a responder that takes one response, whole
// or streamed.

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace nsa {

class RequestRecord;  // server/request_log.h

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "GET"; upper case as sent
  std::string path;    // percent-decoded, starts with '/'; "*" only with OPTIONS
  std::string query;   // as sent, without '?'
  HttpHeaders headers;
  std::string body;
  std::string request_id;  // the client's x-request-id if it is acceptable, else a new one
  std::string caller;      // who sent it: as GenerateCall::caller; set before an endpoint sees it
  std::shared_ptr<RequestRecord> record;  // its line in the log; set by the connection

  // The first header of this name, compared without case; null if absent.
  const std::string* Header(const std::string& name) const;
};

// x-request-id, date, server, content-length and connection are added by the connection.
struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers;
  std::string body;
  std::string error_code;      // of an error, for the log
  std::shared_ptr<void> kept;  // until the response is out or the peer has left
};

// The answering end of one request. Thread-safe; no call blocks. What the connection runs on the
// endpoint's behalf (the handler itself, Post, OnDisconnect) runs one at a time, in order. Once
// the response is complete or the peer has left, every call is a no-op. Dropping the last reference
// without a response answers 500; in mid-stream it ends the connection.
class HttpResponder {
 public:
  virtual ~HttpResponder() = default;

  // The name under which the response is counted: one of the route table's paths.
  virtual void SetRoute(const std::string& route) = 0;
  virtual void Send(HttpResponse response) = 0;

  // StartStream (the body in `head` is not used), Write as often as needed, Close. The heartbeat is
  // sent each time the stream has been silent for HttpOptions::heartbeat_interval, unless it is
  // empty.
  virtual void StartStream(HttpResponse head, std::string heartbeat) = 0;
  // If the peer reads so slowly that the unsent bytes beside the largest chunk exceed
  // HttpOptions::max_buffered_bytes, the connection is closed, as if the peer had left.
  virtual void Write(std::string chunk) = 0;
  virtual void Close() = 0;

  // `callback` runs once if the peer leaves, or is dropped, before the response is complete. To be
  // set by the handler before it returns.
  virtual void OnDisconnect(std::function<void()> callback) = 0;
  // Runs `function` later, never from inside this call, unless the exchange has ended by then.
  virtual void Post(std::function<void()> function) = 0;
};

using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<HttpResponder>)>;

}  // namespace nsa
