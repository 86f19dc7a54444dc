#include "base/machine.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <thread>

namespace nsa {
namespace {

constexpr char kControlGroup[] = "/sys/fs/cgroup/";  // as a container sees its own

// The number behind `name` in /proc/meminfo, in bytes; 0 if there is none.
int64_t MemInfo(const std::string& name) {
  std::ifstream file("/proc/meminfo");
  std::string word;
  int64_t kibibytes = 0;
  while (file >> word) {
    if (word == name && file >> kibibytes) return kibibytes << 10;
  }
  return 0;
}

}  // namespace

int64_t LimitCores(int64_t num_cores, const std::string& cpu_max) {
  std::istringstream text(cpu_max);
  int64_t quota = 0, period = 0;
  if (!(text >> quota >> period) || quota <= 0 || period <= 0) return num_cores;
  const int64_t share = quota / period + (quota % period > 0 ? 1 : 0);
  return std::min(num_cores, share);
}

int64_t NumUsableCores() {
  const auto num_cores = std::max<int64_t>(1, std::thread::hardware_concurrency());
  std::string cpu_max;
  std::getline(std::ifstream(std::string(kControlGroup) + "cpu.max"), cpu_max);
  return LimitCores(num_cores, cpu_max);
}

MachineMemory GetMachineMemory() {
  MachineMemory memory{.total = MemInfo("MemTotal:"), .available = MemInfo("MemAvailable:")};
  int64_t limit = 0;
  const bool has_limit = bool(std::ifstream(std::string(kControlGroup) + "memory.max") >> limit);
  if (has_limit && limit < memory.total) memory.container_limit = limit;
  return memory;
}

}  // namespace nsa
