#pragma once
// GrpcServer: the gRPC front end with health checks and reflection.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/api_keys.h"
#include "server/generation_service.h"
#include "server/request_log.h"
#include "server/tls_files.h"

namespace nsa {

struct GrpcOptions {
  std::string host = "127.0.0.1";        // an address or a name
  int port = 9000;                       // 0: any free one
  int64_t max_message_bytes = 16 << 20;  // of a request
  // Of all requests that are being read, with what the connections need; beyond it gRPC ends calls
  // and idle connections.
  int64_t max_total_message_bytes = 256 << 20;
  int64_t max_streams = 1024;          // concurrent calls of one connection
  int64_t max_queued_bytes = 1 << 20;  // of one call, for a slow reader; more: the call ends
  absl::Duration keepalive = absl::Seconds(30);  // after that much silence the peer is pinged
  absl::Duration min_ping_interval = absl::Seconds(10);  // clients that ping more often are dropped
  absl::Duration idle_timeout = absl::Seconds(75);       // of a connection without a call
  absl::Duration handshake_timeout = absl::Seconds(20);  // for a connection's first words
  const ApiKeys* keys = nullptr;  // outlive the server; null: everybody may call. Health checks and
                                  // reflection never need one.
  TlsFiles tls;                   // empty: no TLS
  // Called once per call of GenerationService with the method and the status code. From any thread.
  std::function<void(std::string_view method, int code)> on_end;
  std::shared_ptr<const RequestLogOptions> log;  // null: calls are not logged
};

class GrpcServer {
 public:
  // Listens; until Serve, calls are UNAVAILABLE and health checks of nsa.v1.GenerationService
  // answer NOT_SERVING. Fails with one line that names address and port.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcOptions& options);
  // Shutdown with a deadline in the past.
  ~GrpcServer();
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  int port() const;

  // The service must outlive the server.
  void Serve(GenerationService* service);

  // Health checks of nsa.v1.GenerationService answer NOT_SERVING from now on; those of "" (the
  // process is alive) go on as before. Calls are still served.
  void StopServing();

  // Refuses new calls, lets running ones finish until the deadline, cancels the rest, and returns
  // when none is left. The engine must still run.
  void Shutdown(absl::Time deadline);

 private:
  class Impl;
  explicit GrpcServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace nsa
