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
#include "base/log.h"
#include "engine/runtime/device.h"
#include "server/request_log.h"

namespace nsa {

struct ServerConfig {
  std::string model;              // folder
  std::string served_model_name;  // empty: the folder's name
  std::string chat_template;      // file; empty: the model's own
  std::string host = "127.0.0.1";
  int64_t http_port = 8000;  // 0: any free one
  int64_t grpc_port = 9000;  // 0: any free one
  DeviceChoice device{.kind = DeviceChoice::Kind::kAuto};
  int64_t kv_cache_bytes = 0;  // 0: by device
  double gpu_memory_utilization = 0.9;
  bool cuda_graphs = true;
  bool prefix_caching = true;
  std::optional<DType> kv_cache_dtype;  // absent: as the weights
  std::string attention;                // empty: the model's own
  int64_t num_threads = 1;              // of the model; ParseServerConfig's default: all cores
  // Zero in these three: by device.
  int64_t max_num_seqs = 0;
  int64_t max_batched_tokens = 0;
  int64_t max_chunk_tokens = 0;
  int64_t max_model_tokens = 0;  // 0: the model's longest sequence
  int64_t max_queued_requests = 256;
  absl::Duration drain_timeout = absl::Seconds(30);
  absl::Duration liveness_timeout = absl::Seconds(30);
  int64_t max_queued_tokens = 0;        // of prompts; 0: no limit
  int64_t max_concurrent_requests = 0;  // waiting and running; 0: no limit
  std::string api_key_file;             // empty: open to everybody
  bool protect_probes = false;          // health and metrics need a key too
  std::string tls_cert, tls_key;        // files; both empty: no TLS
  std::vector<std::string> cors_origins;
  bool strict = false;                                // unknown fields of HTTP requests are refused
  bool console = true;                                // the page at /
  int64_t max_body_bytes = int64_t{16} << 20;         // of a request, over HTTP and gRPC
  int64_t max_total_body_bytes = int64_t{256} << 20;  // of all together, over each of the two
  int64_t max_constraint_bytes = int64_t{1} << 30;    // compiled, of all together
  int64_t max_header_bytes = int64_t{32} << 10;
  int64_t max_connections = 1024;  // over HTTP
  int64_t max_streams = 1024;      // over gRPC, of one connection
  absl::Duration idle_timeout = absl::Seconds(75);
  absl::Duration read_timeout = absl::Seconds(60);
  LogFormat log_format = LogFormat::kText;
  AccessLog access_log = AccessLog::kNoProbes;
  int64_t log_prompts_bytes = 0;  // of prompts and answers in the log; 0: none
};

// What a command line asks for.
struct CommandLine {
  enum class Action : uint8_t { kServe, kDoctor, kHelp, kVersion };
  Action action = Action::kServe;
  ServerConfig config;
};

// The value of an environment variable; empty if it is not set.
using Environment = std::function<std::string(const std::string& name)>;
std::string ProcessEnvironment(const std::string& name);

// `arguments` without the program's name: --name=value, --name value, and perhaps "doctor". A
// flag that is not given takes the environment variable NSA_NAME (--http-port: NSA_HTTP_PORT) if
// that is set. INVALID_ARGUMENT names the flag, the value and what is allowed.
absl::StatusOr<CommandLine> ParseServerConfig(const std::vector<std::string>& arguments,
                                              const Environment& environment);

// Fills in what depends on the device, and was not given: on a GPU kv_cache_bytes stays 0, for what
// is left of its memory. INVALID_ARGUMENT: values that now contradict each other.
absl::Status ApplyDeviceDefaults(DeviceType device, ServerConfig* config);

// A flag for people.
struct FlagHelp {
  std::string name;
  std::string value;  // what stands for the value
  std::string help;
};
// All of them, in the order of --help.
std::vector<FlagHelp> FlagHelps();

}  // namespace nsa
