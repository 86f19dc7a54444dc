#include "bench/serving/runner.h"

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <utility>

namespace nsa::bench {
namespace {

// Before a client of a closed loop calls again after a failure: a server that refuses, or is gone,
// is not to be called in a spin.
constexpr auto kPauseAfterFailure = std::chrono::milliseconds(100);

class Runner {
 public:
  Runner(const BenchOptions& options, Caller* caller, boost::asio::io_context* loop)
      : options_(options),
        workload_(options.workload),
        caller_(caller),
        loop_(loop),
        arrivals_(*loop),
        start_(Clock::now()) {}

  RunResult Run() {
    if (options_.workload.rate > 0) {
      AwaitArrival();
    } else {
      for (int64_t i = 0; i < options_.concurrency; ++i) StartNext();
    }
    loop_->run();
    Clock::time_point end = start_;
    for (const CallRecord& call : result_.calls) end = std::max(end, call.end);
    result_.seconds = std::chrono::duration<double>(end - start_).count();
    return std::move(result_);
  }

 private:
  bool IsLast(int64_t index, absl::Duration since_start) const {
    return (options_.num_calls > 0 && index >= options_.num_calls) ||
           since_start >= options_.duration;
  }

  // Open loop.
  void AwaitArrival() {
    const PlannedCall call = workload_.Next();
    if (IsLast(call.index, call.arrival)) return;
    const Clock::time_point arrival = start_ + absl::ToChronoNanoseconds(call.arrival);
    arrivals_.expires_at(arrival);
    arrivals_.async_wait([this, call, arrival](boost::system::error_code /*error*/) {
      caller_->Start(call, arrival,
                     [this](CallRecord record) { result_.calls.push_back(std::move(record)); });
      AwaitArrival();
    });
  }

  // Closed loop.
  void StartNext() {
    const Clock::time_point now = Clock::now();
    const PlannedCall call = workload_.Next();
    if (IsLast(call.index, absl::FromChrono(now - start_))) return;
    caller_->Start(call, now, [this](CallRecord record) {
      const bool is_answered =
          record.outcome == Outcome::kOk || record.outcome == Outcome::kCancelled;
      result_.calls.push_back(std::move(record));
      return is_answered ? StartNext() : StartNextLater();
    });
  }

  void StartNextLater() {
    auto timer = std::make_shared<boost::asio::steady_timer>(*loop_, kPauseAfterFailure);
    timer->async_wait([this, timer](boost::system::error_code /*error*/) { StartNext(); });
  }

  const BenchOptions& options_;
  Workload workload_;
  Caller* const caller_;
  boost::asio::io_context* const loop_;
  boost::asio::steady_timer arrivals_;
  const Clock::time_point start_;
  RunResult result_;
};

}  // namespace

RunResult RunLoad(const BenchOptions& options, Caller* caller, boost::asio::io_context* loop) {
  return Runner(options, caller, loop).Run();
}

}  // namespace nsa::bench
