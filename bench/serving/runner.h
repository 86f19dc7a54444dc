#pragma once
// Runs a load: starts calls when they are due, collects what became of them.

#include <boost/asio/io_context.hpp>
#include <vector>

#include "bench/serving/caller.h"
#include "bench/serving/options.h"

namespace nsa::bench {

struct RunResult {
  std::vector<CallRecord> calls;  // in the order of their ends
  double seconds = 0;             // from the start to the last end
};

// An open loop starts each call at its arrival, whatever became of the others. A closed loop has
// `concurrency` calls in progress; a client whose call was not answered waits a moment. `loop` is
// the caller's, and runs here.
RunResult RunLoad(const BenchOptions& options, Caller* caller, boost::asio::io_context* loop);

}  // namespace nsa::bench
