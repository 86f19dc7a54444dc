#include "server/flag_setters.h"

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace nsa {
namespace {

constexpr double kMaxSeconds = 86400;

absl::Status Allowed(const std::string& what) { return absl::InvalidArgumentError(what); }

}  // namespace

FlagSetter TextFlag(std::string ServerConfig::*field) {
  return [field](const std::string& value, ServerConfig* config) {
    if (value.empty()) return Allowed("any text that is not empty");
    config->*field = value;
    return absl::OkStatus();
  };
}

FlagSetter NumberFlag(int64_t ServerConfig::*field, int64_t low, int64_t high) {
  return [field, low, high](const std::string& value, ServerConfig* config) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(value, &number) || number < low || number > high) {
      return Allowed(absl::StrCat(low, " to ", high));
    }
    config->*field = number;
    return absl::OkStatus();
  };
}

namespace {

// Bytes with an optional suffix; nothing if that is not what the text is.
std::optional<double> ParseBytes(const std::string& value) {
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
  if (digits.find_first_not_of("0123456789.") != std::string::npos) return std::nullopt;
  double number = 0;
  if (!absl::SimpleAtod(digits, &number)) return std::nullopt;
  return std::ldexp(number, shift);
}

}  // namespace

FlagSetter BytesFlag(int64_t ServerConfig::*field, int64_t low, int64_t high) {
  return [field, low, high](const std::string& value, ServerConfig* config) {
    const std::optional<double> num_bytes = ParseBytes(value);
    if (!num_bytes.has_value() || *num_bytes < static_cast<double>(low) ||
        *num_bytes > static_cast<double>(high)) {
      return Allowed(
          absl::StrCat(low, " to ", high, " bytes, also as KiB, MiB, GiB or TiB: 512MiB"));
    }
    config->*field = static_cast<int64_t>(*num_bytes);
    return absl::OkStatus();
  };
}

absl::Status SetCacheDtypeFlag(const std::string& value, ServerConfig* config) {
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
absl::Status SetDeviceFlag(const std::string& value, ServerConfig* config) {
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

absl::Status SetMemoryUtilizationFlag(const std::string& value, ServerConfig* config) {
  double part = 0;
  if (!absl::SimpleAtod(value, &part) || !(part > 0 && part <= 1)) {
    return Allowed("above 0, at most 1");
  }
  config->gpu_memory_utilization = part;
  return absl::OkStatus();
}

FlagSetter OnOffFlag(bool ServerConfig::*member) {
  return [member](const std::string& value, ServerConfig* config) -> absl::Status {
    if (value != "on" && value != "off") return Allowed("on, off");
    config->*member = value == "on";
    return absl::OkStatus();
  };
}

absl::Status SetAttentionFlag(const std::string& value, ServerConfig* config) {
  if (value != "auto" && value != "full") return Allowed("auto, full");
  config->attention = value == "auto" ? "" : value;
  return absl::OkStatus();
}

absl::Status SetLogFormatFlag(const std::string& value, ServerConfig* config) {
  if (value != "text" && value != "json") return Allowed("text, json");
  config->log_format = value == "json" ? LogFormat::kJson : LogFormat::kText;
  return absl::OkStatus();
}

absl::Status SetAccessLogFlag(const std::string& value, ServerConfig* config) {
  constexpr std::pair<const char*, AccessLog> kValues[] = {
      {"on", AccessLog::kOn}, {"off", AccessLog::kOff}, {"no-probes", AccessLog::kNoProbes}};
  for (const auto& [name, access_log] : kValues) {
    if (value != name) continue;
    config->access_log = access_log;
    return absl::OkStatus();
  }
  return Allowed("on, off, no-probes");
}

// Seconds, with or without an "s".
FlagSetter DurationFlag(absl::Duration ServerConfig::*member, double low) {
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

// An origin is a scheme and a host, perhaps with a port, and nothing behind it.
absl::Status SetCorsOriginsFlag(const std::string& value, ServerConfig* config) {
  std::vector<std::string> origins = absl::StrSplit(value, ',');
  for (const std::string& origin : origins) {
    if (origin == "*") continue;
    const size_t host = origin.find("://");
    const bool is_origin = host != std::string::npos && host > 0 && host + 3 < origin.size() &&
                           origin.find_first_of("/ \t?#@*", host + 3) == std::string::npos;
    if (!is_origin) return Allowed("* or origins like https://chat.example.com, with commas");
  }
  config->cors_origins = std::move(origins);
  return absl::OkStatus();
}

}  // namespace nsa
