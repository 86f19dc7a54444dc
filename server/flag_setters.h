#pragma once
// What turns a flag's text into a value of ServerConfig. A setter's error says what is allowed; the
// caller adds the flag and the text.

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "server/config.h"

namespace nsa {

using FlagSetter = std::function<absl::Status(const std::string& value, ServerConfig* config)>;

// Any text that is not empty.
FlagSetter TextFlag(std::string ServerConfig::*field);
// A whole number from `low` to `high`.
FlagSetter NumberFlag(int64_t ServerConfig::*field, int64_t low, int64_t high);
// A count of bytes with an optional suffix: 1048576, 512MiB, 1.5GiB.
FlagSetter BytesFlag(int64_t ServerConfig::*field, int64_t low, int64_t high);
// on, off.
FlagSetter OnOffFlag(bool ServerConfig::*member);
// Seconds from `low`, with or without an "s".
FlagSetter DurationFlag(absl::Duration ServerConfig::*member, double low);

// Of one flag each.
absl::Status SetAccessLogFlag(const std::string& value, ServerConfig* config);
absl::Status SetAttentionFlag(const std::string& value, ServerConfig* config);
absl::Status SetCacheDtypeFlag(const std::string& value, ServerConfig* config);
absl::Status SetCorsOriginsFlag(const std::string& value, ServerConfig* config);
absl::Status SetDeviceFlag(const std::string& value, ServerConfig* config);
absl::Status SetLogFormatFlag(const std::string& value, ServerConfig* config);
absl::Status SetMemoryUtilizationFlag(const std::string& value, ServerConfig* config);

}  // namespace nsa
