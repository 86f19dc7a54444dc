#pragma once
// GrpcCaller: calls of nsa.v1.GenerationService.Generate, all on one connection.

#include <boost/asio/io_context.hpp>
#include <memory>

#include "bench/serving/caller.h"
#include "bench/serving/options.h"
#include "nsa/v1/generation.grpc.pb.h"

namespace nsa::bench {

class GrpcCaller : public Caller {
 public:
  // The loop outlives the caller and its calls.
  GrpcCaller(const BenchOptions& options, boost::asio::io_context* loop);

  void Start(const PlannedCall& call, Clock::time_point arrival, Done done) override;

 private:
  class Call;

  const BenchOptions options_;
  boost::asio::io_context* const loop_;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
};

}  // namespace nsa::bench
