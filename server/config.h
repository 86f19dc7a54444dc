#pragma once
// ServerConfig: what the operator says, from flags and environment. The only reader of either.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/dtype.h"

namespace nsa {

struct ServerConfig {
  std::string model;              // folder
  std::string served_model_name;  // empty: the folder's name
  std::string chat_template;      // file; empty: the model's own
  std::string host = "127.0.0.1";
  int64_t http_port = 8000;  // 0: any free one
  int64_t grpc_port = 9000;  // 0: any free one
  int64_t kv_cache_bytes = int64_t{512} << 20;
  std::optional<DType> kv_cache_dtype;  // absent: as the weights
  std::string attention;                // empty: the model's own
  int64_t num_threads = 1;              // of the model; ParseServerConfig's default: all cores
  int64_t max_num_seqs = 16;
  int64_t max_batched_tokens = 512;
  int64_t max_chunk_tokens = 256;
  int64_t max_model_tokens = 0;  // 0: the model's longest sequence
  int64_t max_queued_requests = 256;
  absl::Duration drain_timeout = absl::Seconds(30);
};

// What a command line asks for.
struct CommandLine {
  enum class Action : uint8_t { kServe, kHelp, kVersion };
  Action action = Action::kServe;
  ServerConfig config;
};

// The value of an environment variable; empty if it is not set.
using Environment = std::function<std::string(const std::string& name)>;
std::string ProcessEnvironment(const std::string& name);

// `arguments` without the program's name: --name=value or --name value. A flag that is not given
// takes the environment variable NSA_NAME (--http-port: NSA_HTTP_PORT) if that is set.
// INVALID_ARGUMENT names the flag, the value and what is allowed.
absl::StatusOr<CommandLine> ParseServerConfig(const std::vector<std::string>& arguments,
                                              const Environment& environment);

// What --help prints.
std::string ServerHelp();

}  // namespace nsa
