#include "server/config.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/machine.h"
#include "base/status.h"
#include "engine/executor.h"
#include "server/flag_setters.h"

namespace nsa {
namespace {

constexpr int64_t kMaxPort = 65535;
constexpr int64_t kMaxThreads = 1024;
constexpr int64_t kMaxTokens = 1 << 24;
constexpr int64_t kMaxCacheBytes = int64_t{1} << 50;
constexpr int64_t kMaxRequests = 1 << 20;
constexpr int64_t kMaxQueuedTokens = int64_t{1} << 40;
constexpr int64_t kMaxConnections = 1 << 20;
constexpr int64_t kMaxBodyBytes = int64_t{1} << 30;
constexpr int64_t kMinConstraintBytes = int64_t{1} << 27;  // of one, with room
constexpr int64_t kMaxHeaderBytes = 1 << 20;
constexpr int64_t kMaxLoggedBytes = 1 << 16;

struct Flag {
  std::string name, value, help;  // as FlagHelp
  FlagSetter set;
};

// The table of all flags, in the order of --help.
std::vector<Flag> Flags() {
  using C = ServerConfig;
  return {
      {"model", "FOLDER", "the model to serve (needed)", TextFlag(&C::model)},
      {"served-model-name", "NAME", "its name in requests; default: the folder's name",
       TextFlag(&C::served_model_name)},
      {"chat-template", "FILE", "a Jinja chat template instead of the model's own",
       TextFlag(&C::chat_template)},
      {"host", "ADDRESS", "where to listen; default 127.0.0.1", TextFlag(&C::host)},
      {"http-port", "PORT", "default 8000; 0: any free one",
       NumberFlag(&C::http_port, 0, kMaxPort)},
      {"grpc-port", "PORT", "default 9000; 0: any free one",
       NumberFlag(&C::grpc_port, 0, kMaxPort)},
      {"device", "DEVICE", "auto (the first GPU, else the CPU), cpu, cuda or cuda:N; default auto",
       &SetDeviceFlag},
      {"kv-cache-bytes", "BYTES",
       "memory of the caches: 1GiB, 256MiB; default 512MiB, on a GPU what is left",
       BytesFlag(&C::kv_cache_bytes, 1, kMaxCacheBytes)},
      {"gpu-memory-utilization", "PART", "of a GPU's memory, for everything together; default 0.9",
       &SetMemoryUtilizationFlag},
      {"kv-cache-dtype", "TYPE", "auto (as the weights), f32, bf16, f16 (GPU only); default auto",
       &SetCacheDtypeFlag},
      {"attention", "KIND",
       "auto (the model's own) or full (for measurement: reads the whole cache); default auto",
       &SetAttentionFlag},
      {"cuda-graphs", "ON_OFF", "replay decode steps on a GPU; off for debugging; default on",
       OnOffFlag(&C::cuda_graphs)},
      {"prefix-caching", "ON_OFF",
       "prompts begin in what is cached of earlier requests; default on",
       OnOffFlag(&C::prefix_caching)},
      {"threads", "N",
       "threads of the model; default: one per core, in a container those of its share",
       NumberFlag(&C::num_threads, 1, kMaxThreads)},
      {"max-num-seqs", "N", "sequences in the cache at once; default 16, on a GPU 64",
       NumberFlag(&C::max_num_seqs, 1, 4096)},
      {"max-batched-tokens", "N", "tokens of all sequences per step; default 512, on a GPU 8192",
       NumberFlag(&C::max_batched_tokens, 1, kMaxBatchedTokens)},
      {"max-chunk-tokens", "N",
       "prompt tokens of one sequence per step; default 256, on a GPU 2048, at most half of a step",
       NumberFlag(&C::max_chunk_tokens, 1, kMaxBatchedTokens)},
      {"max-model-tokens", "N", "longest prompt + generation; default 0: the model's",
       NumberFlag(&C::max_model_tokens, 0, kMaxTokens)},
      {"max-queued-requests", "N", "waiting requests; more are refused; default 256",
       NumberFlag(&C::max_queued_requests, 1, kMaxRequests)},
      {"max-queued-tokens", "N",
       "prompt tokens of waiting requests; more are refused; default 0: no limit",
       NumberFlag(&C::max_queued_tokens, 0, kMaxQueuedTokens)},
      {"max-concurrent-requests", "N",
       "waiting and running requests; more are refused; default 0: no limit",
       NumberFlag(&C::max_concurrent_requests, 0, kMaxRequests)},
      {"drain-timeout", "SECONDS", "how long running requests may finish at SIGTERM; default 30",
       DurationFlag(&C::drain_timeout, 0)},
      {"liveness-timeout", "SECONDS",
       "/health fails when work is pending and no step ended for so long; default 30",
       DurationFlag(&C::liveness_timeout, 1)},
      {"api-key-file", "FILE", "keys, one per line; requests need one; default: open to everybody",
       TextFlag(&C::api_key_file)},
      {"protect-probes", "ON_OFF",
       "/health, /health/ready and /metrics need a key too; default off",
       OnOffFlag(&C::protect_probes)},
      {"tls-cert", "FILE", "certificate chain in PEM; with --tls-key, HTTP and gRPC take TLS only",
       TextFlag(&C::tls_cert)},
      {"tls-key", "FILE", "its private key in PEM, without a password", TextFlag(&C::tls_key)},
      {"cors-origins", "LIST",
       "origins whose pages may call over HTTP, separated by commas, or *; default: none",
       &SetCorsOriginsFlag},
      {"strict", "ON_OFF", "fields of HTTP requests that are not known are refused; default off",
       OnOffFlag(&C::strict)},
      {"console", "ON_OFF", "the page for browsers at /; default on", OnOffFlag(&C::console)},
      {"max-body-bytes", "BYTES", "of a request, over HTTP and gRPC; default 16MiB",
       BytesFlag(&C::max_body_bytes, 1024, kMaxBodyBytes)},
      {"max-total-body-bytes", "BYTES",
       "of all requests being read, over HTTP and again over gRPC, and of all answers that are not "
       "streamed; default 256MiB",
       BytesFlag(&C::max_total_body_bytes, 1024, kMaxCacheBytes)},
      {"max-constraint-bytes", "BYTES",
       "of all compiled constraints, of which a quarter is kept for later requests; default 1GiB",
       BytesFlag(&C::max_constraint_bytes, kMinConstraintBytes, kMaxCacheBytes)},
      {"max-header-bytes", "BYTES", "of an HTTP request; default 32KiB",
       BytesFlag(&C::max_header_bytes, 1024, kMaxHeaderBytes)},
      {"max-connections", "N", "over HTTP; more are answered 503, but for probes; default 1024",
       NumberFlag(&C::max_connections, 1, kMaxConnections)},
      {"max-streams", "N", "gRPC calls at once on one connection; default 1024",
       NumberFlag(&C::max_streams, 1, kMaxConnections)},
      {"idle-timeout", "SECONDS", "of a connection without a request; default 75",
       DurationFlag(&C::idle_timeout, 1)},
      {"read-timeout", "SECONDS", "for an HTTP request to arrive whole; default 60",
       DurationFlag(&C::read_timeout, 1)},
      {"log-format", "FORMAT", "text, or json: one object per line; default text",
       &SetLogFormatFlag},
      {"access-log", "WHICH",
       "a line for each request that ended: on, off, no-probes (not for probes and scrapes that "
       "succeed); default no-probes",
       &SetAccessLogFlag},
      {"log-prompts", "BYTES",
       "shows so much of each prompt and of its answer in the access log; default 0: nothing",
       BytesFlag(&C::log_prompts_bytes, 0, kMaxLoggedBytes)},
  };
}

absl::Status Apply(const Flag& flag, const std::string& source, const std::string& value,
                   ServerConfig* config) {
  absl::Status status = flag.set(value, config);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat(source, " is '", value, "'; allowed: ", status.message()));
}

std::string EnvironmentName(const std::string& flag_name) {
  return "NSA_" + absl::AsciiStrToUpper(absl::StrReplaceAll(flag_name, {{"-", "_"}}));
}

absl::Status ApplyEnvironment(const std::vector<Flag>& flags, const Environment& environment,
                              ServerConfig* config) {
  for (const Flag& flag : flags) {
    const std::string name = EnvironmentName(flag.name);
    const std::string value = environment(name);
    if (!value.empty()) NSA_RETURN_IF_ERROR(Apply(flag, name, value, config));
  }
  return absl::OkStatus();
}

// A step must have room for one token of every sequence that decodes. Zeros are not known yet.
absl::Status CheckStepHasRoom(const ServerConfig& config) {
  if (config.max_batched_tokens == 0 || config.max_batched_tokens >= config.max_num_seqs) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--max-batched-tokens is ", config.max_batched_tokens,
                   "; allowed: at least --max-num-seqs, ", config.max_num_seqs));
}

absl::Status CheckTogether(const ServerConfig& config) {
  if (config.http_port != 0 && config.http_port == config.grpc_port) {
    return absl::InvalidArgumentError(
        absl::StrCat("--http-port and --grpc-port are both ", config.http_port));
  }
  if (config.tls_cert.empty() != config.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key belong together");
  }
  if (config.protect_probes && config.api_key_file.empty()) {
    return absl::InvalidArgumentError("--protect-probes=on needs --api-key-file");
  }
  if (config.max_total_body_bytes < config.max_body_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-total-body-bytes is ", config.max_total_body_bytes,
                     "; allowed: at least --max-body-bytes, ", config.max_body_bytes));
  }
  if (config.log_prompts_bytes > 0 && config.access_log == AccessLog::kOff) {
    return absl::InvalidArgumentError("--log-prompts needs --access-log=on or no-probes");
  }
  return CheckStepHasRoom(config);
}

// One flag at the front of the arguments from `next` on; moves `next` behind it and its value.
absl::Status ApplyArgument(const std::vector<Flag>& flags,
                           const std::vector<std::string>& arguments, size_t* next,
                           ServerConfig* config) {
  const std::string& argument = arguments[(*next)++];
  const size_t equals = argument.find('=');
  const std::string name = argument.substr(0, equals);
  const auto flag = std::find_if(flags.begin(), flags.end(),
                                 [&](const Flag& f) { return name == "--" + f.name; });
  if (flag == flags.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown argument '", name, "'; --help lists all flags"));
  }
  if (equals != std::string::npos) {
    return Apply(*flag, name, argument.substr(equals + 1), config);
  }
  if (*next == arguments.size()) {
    return absl::InvalidArgumentError(absl::StrCat(name, " needs a value"));
  }
  return Apply(*flag, name, arguments[(*next)++], config);
}

}  // namespace

std::string ProcessEnvironment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

absl::StatusOr<CommandLine> ParseServerConfig(const std::vector<std::string>& arguments,
                                              const Environment& environment) {
  CommandLine command_line;
  ServerConfig& config = command_line.config;
  config.num_threads = std::min(NumUsableCores(), kMaxThreads);
  for (const std::string& argument : arguments) {
    if (argument == "--help") command_line.action = CommandLine::Action::kHelp;
    if (argument == "--version") command_line.action = CommandLine::Action::kVersion;
  }
  if (command_line.action != CommandLine::Action::kServe) return command_line;
  const std::vector<Flag> flags = Flags();
  NSA_RETURN_IF_ERROR(ApplyEnvironment(flags, environment, &config));
  for (size_t next = 0; next < arguments.size();) {
    if (arguments[next] == "doctor") {
      command_line.action = CommandLine::Action::kDoctor;
      ++next;
      continue;
    }
    NSA_RETURN_IF_ERROR(ApplyArgument(flags, arguments, &next, &config));
  }
  if (config.model.empty() && command_line.action == CommandLine::Action::kServe) {
    return absl::InvalidArgumentError("--model=FOLDER is missing; --help lists all flags");
  }
  NSA_RETURN_IF_ERROR(CheckTogether(config));
  return command_line;
}

absl::Status ApplyDeviceDefaults(DeviceType device, ServerConfig* config) {
  const bool on_gpu = device == DeviceType::kCuda;
  const auto fill_in = [](int64_t value, int64_t* field) {
    if (*field == 0) *field = value;
  };
  fill_in(on_gpu ? 64 : 16, &config->max_num_seqs);
  fill_in(on_gpu ? 8192 : 512, &config->max_batched_tokens);
  // A long prompt leaves half of a step to the others.
  fill_in(std::clamp<int64_t>(config->max_batched_tokens / 2, 1, on_gpu ? 2048 : 256),
          &config->max_chunk_tokens);
  if (!on_gpu) fill_in(int64_t{512} << 20, &config->kv_cache_bytes);
  return CheckStepHasRoom(*config);
}

std::vector<FlagHelp> FlagHelps() {
  std::vector<FlagHelp> helps;
  for (const Flag& flag : Flags()) helps.push_back({flag.name, flag.value, flag.help});
  return helps;
}

}  // namespace nsa
