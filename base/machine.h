#pragma once
// What of the machine this process may use.

#include <cstdint>
#include <optional>
#include <string>

namespace nsa {

// Cores, at least 1: those that the scheduler may give it, at most a container's share of time,
// rounded up.
int64_t NumUsableCores();

// Bytes of the machine's memory: all, and what new work can have.
struct MachineMemory {
  int64_t total = 0, available = 0;
  std::optional<int64_t> container_limit;  // absent: none, or not below `total`
};
MachineMemory GetMachineMemory();

// Cores of `num_cores` that a control group's cpu.max ("200000 100000" or "max 100000") leaves.
int64_t LimitCores(int64_t num_cores, const std::string& cpu_max);

}  // namespace nsa
