// Tokens per second of a running server at several concurrencies, over gRPC, and its memory over
// many requests. serving_bench ADDRESS [--pid=SERVER_PID --requests=10000] [--json]

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "nsa/v1/generation.grpc.pb.h"

namespace nsa {
namespace {

constexpr int kPromptTokens = 128;
constexpr int kGeneratedTokens = 128;
constexpr int kRequestsPerClient = 4;

struct Options {
  std::string address;
  int64_t server_pid = 0;
  int64_t num_soak_requests = 0;
  bool json = false;
};

struct Figures {
  int concurrency = 0;
  double tokens_per_second = 0;
  double first_token_ms = 0;  // median
  double per_token_ms = 0;    // median over requests
};

v1::GenerateRequest MakeRequest(int seed, int num_prompt_tokens, int num_generated_tokens) {
  v1::GenerateRequest request;
  for (int i = 0; i < num_prompt_tokens; ++i) {
    request.mutable_token_ids()->add_ids(300 + (seed * 7919 + i * 104729) % 4000);
  }
  request.set_max_tokens(num_generated_tokens);
  request.set_temperature(0);
  request.set_ignore_eos(true);
  return request;
}

struct CallTimes {
  absl::Duration first_token, whole;
};

// Runs one request to its end; a failed one ends the benchmark.
CallTimes RunRequest(v1::GenerationService::Stub& stub, const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  const absl::Time start = absl::Now();
  auto reader = stub.Generate(&context, request);
  CallTimes times;
  int num_tokens = 0;
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (num_tokens == 0 && response.token_ids_size() > 0) times.first_token = absl::Now() - start;
    num_tokens += response.token_ids_size();
  }
  times.whole = absl::Now() - start;
  const grpc::Status status = reader->Finish();
  if (!status.ok() || num_tokens != request.max_tokens()) {
    std::fprintf(stderr, "request failed after %d tokens: %s\n", num_tokens,
                 status.error_message().c_str());
    std::exit(1);
  }
  return times;
}

double MedianMs(std::vector<absl::Duration> values) {
  std::sort(values.begin(), values.end());
  return absl::ToDoubleMilliseconds(values[values.size() / 2]);
}

Figures MeasureConcurrency(v1::GenerationService::Stub& stub, int concurrency) {
  std::vector<std::vector<CallTimes>> times(concurrency);
  std::vector<std::thread> clients;
  const absl::Time start = absl::Now();
  for (int client = 0; client < concurrency; ++client) {
    clients.emplace_back([&stub, &times, client] {
      for (int i = 0; i < kRequestsPerClient; ++i) {
        const int seed = client * kRequestsPerClient + i;
        times[client].push_back(
            RunRequest(stub, MakeRequest(seed, kPromptTokens, kGeneratedTokens)));
      }
    });
  }
  for (std::thread& client : clients) client.join();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);

  std::vector<absl::Duration> first, per_token;
  for (const auto& client : times) {
    for (const CallTimes& call : client) {
      first.push_back(call.first_token);
      per_token.push_back((call.whole - call.first_token) / (kGeneratedTokens - 1));
    }
  }
  return {.concurrency = concurrency,
          .tokens_per_second = concurrency * kRequestsPerClient * kGeneratedTokens / seconds,
          .first_token_ms = MedianMs(first),
          .per_token_ms = MedianMs(per_token)};
}

// Resident memory of a process in MiB.
double ResidentMib(int64_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (absl::StartsWith(line, "VmRSS:")) return std::atof(line.c_str() + 6) / 1024;
  }
  return 0;
}

// Short requests from several clients; prints resident memory along the way.
void Soak(v1::GenerationService::Stub& stub, const Options& options) {
  constexpr int kClients = 8;
  constexpr int kReports = 5;
  std::printf("\n%-12s %12s\n", "requests", "resident MiB");
  std::atomic<int64_t> num_done{0};
  for (int report = 0; report <= kReports; ++report) {
    const int64_t goal = options.num_soak_requests * report / kReports;
    std::vector<std::thread> clients;
    for (int client = 0; client < kClients; ++client) {
      clients.emplace_back([&] {
        for (int64_t i = num_done.fetch_add(1); i < goal; i = num_done.fetch_add(1)) {
          RunRequest(stub, MakeRequest(static_cast<int>(i), 16 + static_cast<int>(i % 48), 2));
        }
      });
    }
    for (std::thread& client : clients) client.join();
    num_done = goal;
    std::printf("%-12lld %12.1f\n", static_cast<long long>(goal), ResidentMib(options.server_pid));
    std::fflush(stdout);
  }
}

void PrintRow(const Figures& figures, bool json) {
  const char* format = json ? "{\"concurrency\": %d, \"tokens_per_second\": %.1f, \"ttft_ms\": "
                              "%.1f, \"itl_ms\": %.2f}\n"
                            : "%-12d %12.1f %12.1f %12.2f\n";
  std::printf(format, figures.concurrency, figures.tokens_per_second, figures.first_token_ms,
              figures.per_token_ms);
  std::fflush(stdout);
}

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    bool ok = true;
    if (absl::ConsumePrefix(&argument, "--pid=")) {
      ok = absl::SimpleAtoi(argument, &options.server_pid);
    } else if (absl::ConsumePrefix(&argument, "--requests=")) {
      ok = absl::SimpleAtoi(argument, &options.num_soak_requests);
    } else if (argument == "--json") {
      options.json = true;
    } else {
      options.address = std::string(argument);
    }
    if (!ok) std::fprintf(stderr, "not a number: %s\n", argv[i]);
  }
  return options;
}

}  // namespace
}  // namespace nsa

int main(int argc, char** argv) {
  const nsa::Options options = nsa::ParseOptions(argc, argv);
  if (options.address.empty()) {
    std::fprintf(stderr, "usage: serving_bench ADDRESS [--pid=SERVER_PID --requests=N] [--json]\n");
    return 1;
  }
  auto channel = grpc::CreateChannel(options.address, grpc::InsecureChannelCredentials());
  auto stub = nsa::v1::GenerationService::NewStub(channel);
  nsa::RunRequest(*stub, nsa::MakeRequest(0, nsa::kPromptTokens, 8));  // warm-up

  if (!options.json) {
    std::printf("prompt %d, generated %d tokens per request\n", nsa::kPromptTokens,
                nsa::kGeneratedTokens);
    std::printf("%-12s %12s %12s %12s\n", "concurrency", "tokens/s", "TTFT ms", "ITL ms");
  }
  for (int concurrency : {1, 4, 16})
    nsa::PrintRow(nsa::MeasureConcurrency(*stub, concurrency), options.json);
  if (options.num_soak_requests > 0) nsa::Soak(*stub, options);
  return 0;
}
