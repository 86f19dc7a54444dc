#pragma once
// HttpCaller: streamed completions over HTTP/1.1, on connections that are kept for later calls.

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/serving/caller.h"
#include "bench/serving/options.h"

namespace nsa::bench {

class HttpCaller : public Caller {
 public:
  // The loop outlives the caller and its calls; everything runs on its one thread.
  HttpCaller(const BenchOptions& options, boost::asio::io_context* loop)
      : options_(options), loop_(loop) {}

  // Looks up the server's address.
  absl::Status Resolve();
  void Start(const PlannedCall& call, Clock::time_point arrival, Done done) override;

 private:
  class Call;
  using Socket = boost::asio::ip::tcp::socket;

  std::string MakeRequest(const PlannedCall& call) const;

  const BenchOptions options_;
  boost::asio::io_context* const loop_;
  boost::asio::ip::tcp::endpoint endpoint_;
  std::vector<std::unique_ptr<Socket>> idle_;  // connected, between calls
};

}  // namespace nsa::bench
