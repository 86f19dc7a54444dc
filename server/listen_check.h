#pragma once
// Whether the server will be able to listen, asked before anything that takes long.

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace nsa {

// Binds a TCP socket to `host` (an address or a name) and `port` (0: any) and lets go of it.
// INVALID_ARGUMENT: --host is at fault; FAILED_PRECONDITION: the port is, of which `port_flag` is
// the flag. Both name the flag, the address and the port.
absl::Status CheckCanListen(const std::string& host, int64_t port, const std::string& port_flag);

}  // namespace nsa
