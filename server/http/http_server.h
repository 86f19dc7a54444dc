#pragma once
// HttpServer: HTTP/1.1 over TCP on a few threads of its own. Hides the HTTP library: endpoints see
// http_message.h only.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/http/http_message.h"
#include "server/tls_files.h"

namespace nsa {

struct RequestLogOptions;  // server/request_log.h

struct HttpOptions {
  std::string host = "127.0.0.1";  // an address or a name
  int port = 8000;                 // 0: any free one
  int num_threads = 4;  // one more than turns, so that one is left to input, output and probes
  int64_t max_header_bytes = 32 << 10;  // request line and headers
  int64_t max_body_bytes = 16 << 20;    // of a request
  // Of all requests that are being read or turned into calls; one that needs more is answered 503.
  int64_t max_total_body_bytes = 256 << 20;
  int64_t max_connections = 1024;  // more are answered 503, but for probes
  // Unsent bytes of a stream beside its largest chunk; more: the reader is dropped.
  int64_t max_buffered_bytes = 1 << 20;
  int64_t socket_send_buffer_bytes = 0;              // SO_SNDBUF; 0: the system's
  absl::Duration idle_timeout = absl::Seconds(75);   // between requests
  absl::Duration read_timeout = absl::Seconds(60);   // from a request's first byte to its last
  absl::Duration write_timeout = absl::Seconds(60);  // for the peer to take 1 MiB, or what is left
  absl::Duration heartbeat_interval = absl::Seconds(15);  // silence of a stream before its ping
  absl::Duration linger_timeout = absl::Seconds(2);  // for the peer to close after our last byte
  TlsFiles tls;                                      // empty: no TLS
  // Asked when the head of a request has been read, before its body is: false if the handler will
  // answer the same whatever the body says. The handler then gets the request without its body,
  // and the connection ends with the response. Empty: always true.
  std::function<bool(const HttpRequest& head)> needs_body;
  // True for a request that is answered on a connection beyond max_connections, too, and does not
  // wait while all handlers that may work at the same time do. Empty: always false.
  std::function<bool(const HttpRequest& head)> is_probe;
  // Handlers wait for their turn in lanes: of each, so many work at the same time. `lane` says
  // which one a request takes. Empty: always the first.
  std::vector<int> lane_turns = {3};
  std::function<size_t(const HttpRequest& request)> lane;
  // Called with each refusal of the server itself (408, 413, 431, 503 ...), to add headers. `head`:
  // what is known of the request. May be empty.
  std::function<void(const HttpRequest& head, HttpResponse* response)> on_error;
  // Called once per response with the route (HttpResponder::SetRoute; "" before one is known) and
  // the status; 499 where the peer left before it. From any of the server's threads.
  std::function<void(const std::string& route, int status)> on_response;
  std::shared_ptr<const RequestLogOptions> log;  // null: requests are not logged
};

class HttpServer {
 public:
  // Listens and serves. `handler` is called on the server's threads, but for probes on as many at
  // a time as the lanes have turns; it may take its time but must not wait for other requests.
  // Fails with one line that names address and port.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(HttpOptions options,
                                                           HttpHandler handler);
  // Shutdown with a deadline in the past.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;
  int64_t num_connections() const;

  // Refuses new connections; those that exist go on.
  void StopAccepting();

  // Stops accepting, closes connections without a whole request, lets running requests finish until
  // the deadline, ends the rest (their OnDisconnect runs), joins the threads. Responders may
  // outlive it.
  void Shutdown(absl::Time deadline);

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace nsa
