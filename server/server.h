#pragma once
// Server: a model behind both transports, from configuration to shutdown.

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config.h"

namespace nsa {

// Called when a phase of the start has finished, with a line about what was found.
using StartupReporter = std::function<void(const std::string& phase, const std::string& detail,
                                           absl::Duration elapsed)>;

// How long answers that are complete may take to leave, once the engine has drained.
inline constexpr absl::Duration kFlushTime = absl::Seconds(3);

class Server {
 public:
  // Listens and loads the model; until it is there, requests are answered UNAVAILABLE. An error is
  // one line that names the file, flag or port at fault. `on_lost` is EngineOptions::on_lost: it
  // must lead to the end of the process.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config,
                                                       const StartupReporter& report,
                                                       std::function<void()> on_lost);
  // Ends what still runs.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int http_port() const;
  int grpc_port() const;
  const std::string& model_name() const;

  // Reports "not ready", refuses new work, lets running requests finish until the deadline, ends
  // the rest with an error, and closes the transports, which
  // takes kFlushTime at most unless a handler hangs.
  void Drain(absl::Time deadline);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace nsa
