#include "server/config.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/status.h"
#include "engine/executor.h"

namespace nsa {
namespace {

constexpr int64_t kMaxPort = 65535;
constexpr int64_t kMaxThreads = 1024;
constexpr int64_t kMaxTokens = 1 << 24;
constexpr double kMaxSeconds = 86400;

// A flag's effect on the configuration. The error says what is allowed; the caller adds the rest.
using Setter = std::function<absl::Status(const std::string& value, ServerConfig* config)>;

struct Flag {
  std::string name;
  std::string value;  // what stands for the value in --help
  std::string help;
  Setter set;
};

absl::Status Allowed(const std::string& what) { return absl::InvalidArgumentError(what); }

Setter Text(std::string ServerConfig::*field) {
  return [field](const std::string& value, ServerConfig* config) {
    if (value.empty()) return Allowed("any text that is not empty");
    config->*field = value;
    return absl::OkStatus();
  };
}

Setter Number(int64_t ServerConfig::*field, int64_t low, int64_t high) {
  return [field, low, high](const std::string& value, ServerConfig* config) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(value, &number) || number < low || number > high) {
      return Allowed(absl::StrCat(low, " to ", high));
    }
    config->*field = number;
    return absl::OkStatus();
  };
}

// A count of bytes with an optional suffix: 1048576, 512MiB, 1.5GiB.
absl::Status SetCacheBytes(const std::string& value, ServerConfig* config) {
  constexpr std::pair<const char*, int> kSuffixes[] = {
      {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
  std::string digits = value;
  int shift = 0;
  for (const auto& [suffix, suffix_shift] : kSuffixes) {
    if (!digits.ends_with(suffix)) continue;
    digits.erase(digits.size() - 3);
    shift = suffix_shift;
    break;
  }
  double number = 0;
  const bool is_number = absl::SimpleAtod(digits, &number) && std::isfinite(number);
  const double num_bytes = std::ldexp(number, shift);
  if (!is_number || num_bytes < 1 || num_bytes > std::ldexp(1.0, 50)) {
    return Allowed("a positive number of bytes, or of KiB, MiB, GiB or TiB: 512MiB");
  }
  config->kv_cache_bytes = static_cast<int64_t>(num_bytes);
  return absl::OkStatus();
}

absl::Status SetCacheDtype(const std::string& value, ServerConfig* config) {
  if (value == "auto") {
    config->kv_cache_dtype.reset();
  } else if (value == "f32") {
    config->kv_cache_dtype = DType::kF32;
  } else if (value == "bf16") {
    config->kv_cache_dtype = DType::kBF16;
  } else if (value == "f16") {
    config->kv_cache_dtype = DType::kF16;
  } else {
    return Allowed("auto, f32, bf16, f16");
  }
  return absl::OkStatus();
}

// auto, cpu, cuda (the first GPU) or cuda:N.
absl::Status SetDevice(const std::string& value, ServerConfig* config) {
  constexpr std::string_view kCuda = "cuda:";
  DeviceChoice choice;
  if (value == "auto") {
    choice.kind = DeviceChoice::Kind::kAuto;
  } else if (value == "cuda" || value.starts_with(kCuda)) {
    choice.kind = DeviceChoice::Kind::kCuda;
    const std::string index = value == "cuda" ? "0" : value.substr(kCuda.size());
    if (!absl::SimpleAtoi(index, &choice.index) || choice.index < 0) {
      return Allowed("auto, cpu, cuda, cuda:N with N from 0");
    }
  } else if (value != "cpu") {
    return Allowed("auto, cpu, cuda, cuda:N with N from 0");
  }
  config->device = choice;
  return absl::OkStatus();
}

absl::Status SetMemoryUtilization(const std::string& value, ServerConfig* config) {
  double part = 0;
  if (!absl::SimpleAtod(value, &part) || !(part > 0 && part <= 1)) {
    return Allowed("above 0, at most 1");
  }
  config->gpu_memory_utilization = part;
  return absl::OkStatus();
}

Setter OnOff(bool ServerConfig::*member) {
  return [member](const std::string& value, ServerConfig* config) -> absl::Status {
    if (value != "on" && value != "off") return Allowed("on, off");
    config->*member = value == "on";
    return absl::OkStatus();
  };
}

absl::Status SetAttention(const std::string& value, ServerConfig* config) {
  if (value != "auto" && value != "full") return Allowed("auto, full");
  config->attention = value == "auto" ? "" : value;
  return absl::OkStatus();
}

// Seconds, with or without an "s".
Setter Duration(absl::Duration ServerConfig::*member, double low) {
  return [member, low](const std::string& value, ServerConfig* config) -> absl::Status {
    std::string digits = value;
    if (digits.ends_with('s')) digits.pop_back();
    double seconds = 0;
    if (!absl::SimpleAtod(digits, &seconds) || !(seconds >= low && seconds <= kMaxSeconds)) {
      return Allowed(absl::StrCat(low, " to ", kMaxSeconds, " seconds"));
    }
    config->*member = absl::Seconds(seconds);
    return absl::OkStatus();
  };
}

// The table of all flags, in the order of --help.
std::vector<Flag> Flags() {
  using C = ServerConfig;
  return {
      {"model", "FOLDER", "the model to serve (needed)", Text(&C::model)},
      {"served-model-name", "NAME", "its name in requests; default: the folder's name",
       Text(&C::served_model_name)},
      {"chat-template", "FILE", "a Jinja chat template instead of the model's own",
       Text(&C::chat_template)},
      {"host", "ADDRESS", "where to listen; default 127.0.0.1", Text(&C::host)},
      {"http-port", "PORT", "default 8000; 0: any free one", Number(&C::http_port, 0, kMaxPort)},
      {"grpc-port", "PORT", "default 9000; 0: any free one", Number(&C::grpc_port, 0, kMaxPort)},
      {"device", "DEVICE", "auto (the first GPU, else the CPU), cpu, cuda or cuda:N; default auto",
       SetDevice},
      {"kv-cache-bytes", "BYTES",
       "memory of the caches: 1GiB, 256MiB; default 512MiB, on a GPU what is left", SetCacheBytes},
      {"gpu-memory-utilization", "PART", "of a GPU's memory, for everything together; default 0.9",
       SetMemoryUtilization},
      {"kv-cache-dtype", "TYPE", "auto (as the weights), f32, bf16, f16 (GPU only); default auto",
       SetCacheDtype},
      {"attention", "KIND",
       "auto (the model's own) or full (for measurement: reads the whole cache); default auto",
       SetAttention},
      {"cuda-graphs", "ON_OFF", "replay decode steps on a GPU; off for debugging; default on",
       OnOff(&C::cuda_graphs)},
      {"prefix-caching", "ON_OFF",
       "prompts begin in what is cached of earlier requests; default on",
       OnOff(&C::prefix_caching)},
      {"threads", "N", "threads of the model; default: all cores",
       Number(&C::num_threads, 1, kMaxThreads)},
      {"max-num-seqs", "N", "sequences in the cache at once; default 16, on a GPU 64",
       Number(&C::max_num_seqs, 1, 4096)},
      {"max-batched-tokens", "N", "tokens of all sequences per step; default 512, on a GPU 8192",
       Number(&C::max_batched_tokens, 1, kMaxBatchedTokens)},
      {"max-chunk-tokens", "N",
       "prompt tokens of one sequence per step; default 256, on a GPU 2048",
       Number(&C::max_chunk_tokens, 1, kMaxBatchedTokens)},
      {"max-model-tokens", "N", "longest prompt + generation; default 0: the model's",
       Number(&C::max_model_tokens, 0, kMaxTokens)},
      {"max-queued-requests", "N", "waiting requests; more are refused; default 256",
       Number(&C::max_queued_requests, 1, 1 << 20)},
      {"drain-timeout", "SECONDS", "how long running requests may finish at SIGTERM; default 30",
       Duration(&C::drain_timeout, 0)},
      {"liveness-timeout", "SECONDS",
       "/health fails when work is pending and no step ended for so long; default 30",
       Duration(&C::liveness_timeout, 1)},
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
  if (config.model.empty()) {
    return absl::InvalidArgumentError("--model=FOLDER is missing; --help lists all flags");
  }
  if (config.http_port != 0 && config.http_port == config.grpc_port) {
    return absl::InvalidArgumentError(
        absl::StrCat("--http-port and --grpc-port are both ", config.http_port));
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
  config.num_threads = std::clamp<int64_t>(std::thread::hardware_concurrency(), 1, kMaxThreads);
  for (const std::string& argument : arguments) {
    if (argument == "--help") command_line.action = CommandLine::Action::kHelp;
    if (argument == "--version") command_line.action = CommandLine::Action::kVersion;
  }
  if (command_line.action != CommandLine::Action::kServe) return command_line;
  const std::vector<Flag> flags = Flags();
  NSA_RETURN_IF_ERROR(ApplyEnvironment(flags, environment, &config));
  for (size_t next = 0; next < arguments.size();) {
    NSA_RETURN_IF_ERROR(ApplyArgument(flags, arguments, &next, &config));
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
  fill_in(on_gpu ? 2048 : 256, &config->max_chunk_tokens);
  if (!on_gpu) fill_in(int64_t{512} << 20, &config->kv_cache_bytes);
  return CheckStepHasRoom(*config);
}

std::string ServerHelp() {
  std::string help =
      "nsa-server --model=FOLDER [flags]: serves a model over HTTP and gRPC.\n"
      "Each flag can also be set in the environment: --http-port as NSA_HTTP_PORT.\n\n";
  for (const Flag& flag : Flags()) {
    absl::StrAppendFormat(&help, "  %-28s %s\n", absl::StrCat("--", flag.name, "=", flag.value),
                          flag.help);
  }
  absl::StrAppendFormat(&help, "  %-28s %s\n", "--help", "prints this");
  absl::StrAppendFormat(&help, "  %-28s %s\n", "--version", "prints the version");
  return help;
}

}  // namespace nsa
