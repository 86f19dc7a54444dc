#pragma once
// `nsa-server doctor`: will a server with these flags work on this machine, and if not, what to do.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "server/config.h"

namespace nsa {

struct Finding {
  enum class Verdict : uint8_t { kOk, kWarning, kProblem };
  Verdict verdict = Verdict::kOk;
  std::string subject;  // "device"
  std::string detail;   // what was found, in one line
  std::string advice;   // what to do; empty with kOk
};

// Examines the machine, the device, the limits of the process, the ports, keys and certificates,
// and the model, which is loaded as the server would load it and generates a few tokens. Tells each
// finding as soon as it is known and goes on after a problem as far as it can.
std::vector<Finding> Examine(const ServerConfig& config,
                             const std::function<void(const Finding&)>& tell);

// One or two lines: "ok       device     CPU, 2 threads".
std::string FormatFinding(const Finding& finding);

// "2 problems, 1 warning", or that the server will work.
std::string SummaryOf(const std::vector<Finding>& findings);

// Whether the server would start.
bool IsHealthy(const std::vector<Finding>& findings);

}  // namespace nsa
