// Load for a running server: see --help and docs/performance.md.

#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "bench/serving/grpc_caller.h"
#include "bench/serving/http_caller.h"
#include "bench/serving/report.h"
#include "bench/serving/runner.h"

namespace nsa::bench {
namespace {

int Main(const std::vector<std::string>& arguments) {
  const absl::StatusOr<BenchOptions> options = ParseOptions(arguments);
  if (!options.ok()) {
    std::fprintf(stderr, "serving_bench: %s\n", std::string(options.status().message()).c_str());
    return 1;
  }
  if (options->help) {
    std::fputs(OptionsHelp().c_str(), stdout);
    return 0;
  }
  std::signal(SIGPIPE, SIG_IGN);  // a server that leaves is an error of its connection
  boost::asio::io_context loop(1);
  std::unique_ptr<Caller> caller;
  if (options->grpc) {
    caller = std::make_unique<GrpcCaller>(*options, &loop);
  } else {
    auto http = std::make_unique<HttpCaller>(*options, &loop);
    if (absl::Status status = http->Resolve(); !status.ok()) {
      std::fprintf(stderr, "serving_bench: %s\n", std::string(status.message()).c_str());
      return 1;
    }
    caller = std::move(http);
  }
  const Summary summary = Summarize(*options, RunLoad(*options, caller.get(), &loop));
  std::puts(options->json ? SummaryJson(*options, summary).c_str() : SummaryTable(summary).c_str());
  return 0;
}

}  // namespace
}  // namespace nsa::bench

int main(int argc, char** argv) {
  return nsa::bench::Main(std::vector<std::string>(argv + 1, argv + argc));
}
