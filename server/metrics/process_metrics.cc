#include "server/metrics/process_metrics.h"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "server/metrics/families.h"

namespace nsa {
namespace {

using prometheus::MetricFamily;

// Places of the fields behind the name of the program, which may itself have spaces and brackets.
constexpr size_t kUserTicks = 11, kKernelTicks = 12, kStartTicks = 19, kVirtualBytes = 20,
                 kResidentPages = 21;

std::optional<ProcessStat> ReadProcessStat() {
  constexpr int64_t kMaxBytes = 4096;
  const auto line = ReadFile("/proc/self/stat", kMaxBytes);
  return line.ok() ? ParseProcessStat(*line) : std::nullopt;
}

double SecondsOf(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

std::optional<int64_t> NumOpenFiles() {
  std::error_code error;
  int64_t num_files = 0;
  std::filesystem::directory_iterator file("/proc/self/fd", error);
  for (; !error && file != std::filesystem::directory_iterator(); file.increment(error)) {
    ++num_files;
  }
  if (error) return std::nullopt;
  return num_files - 1;  // without the one by which the folder was read
}

MetricFamily Gauge(const char* name, const char* help, double value) {
  return GaugeFamily(name, help, {{{}, value}});
}

}  // namespace

std::optional<ProcessStat> ParseProcessStat(std::string_view line) {
  const size_t name_end = line.rfind(')');
  if (name_end == line.npos) return std::nullopt;
  const absl::string_view rest(line.data() + name_end + 1, line.size() - name_end - 1);
  const std::vector<absl::string_view> fields = absl::StrSplit(rest, ' ', absl::SkipWhitespace());
  if (fields.size() <= kResidentPages) return std::nullopt;
  int64_t user = 0, kernel = 0, start = 0, pages = 0;
  ProcessStat stat;
  if (!absl::SimpleAtoi(fields[kUserTicks], &user) ||
      !absl::SimpleAtoi(fields[kKernelTicks], &kernel) ||
      !absl::SimpleAtoi(fields[kStartTicks], &start) ||
      !absl::SimpleAtoi(fields[kVirtualBytes], &stat.virtual_bytes) ||
      !absl::SimpleAtoi(fields[kResidentPages], &pages)) {
    return std::nullopt;
  }
  const auto ticks_per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  stat.cpu_seconds = static_cast<double>(user + kernel) / ticks_per_second;
  stat.start_seconds = static_cast<double>(start) / ticks_per_second;
  stat.resident_bytes = pages * sysconf(_SC_PAGESIZE);
  return stat;
}

ProcessMetrics::ProcessMetrics()
    : start_time_(SecondsOf(CLOCK_REALTIME) - SecondsOf(CLOCK_BOOTTIME) +
                  ReadProcessStat().value_or(ProcessStat()).start_seconds) {}

std::vector<MetricFamily> ProcessMetrics::Collect() const {
  const std::optional<ProcessStat> stat = ReadProcessStat();
  const std::optional<int64_t> num_open_files = NumOpenFiles();
  rlimit max_files = {};
  if (!stat || !num_open_files || getrlimit(RLIMIT_NOFILE, &max_files) != 0) return {};
  return {
      CounterFamily("process_cpu_seconds_total", "CPU time of all threads, user and system.",
                    {{{}, stat->cpu_seconds}}),
      Gauge("process_resident_memory_bytes", "Memory that is in RAM, mapped files included.",
            static_cast<double>(stat->resident_bytes)),
      Gauge("process_virtual_memory_bytes", "Address space that is in use.",
            static_cast<double>(stat->virtual_bytes)),
      Gauge("process_start_time_seconds", "Start of the process, since the Unix epoch.",
            start_time_),
      Gauge("process_open_fds", "Open file descriptors.", static_cast<double>(*num_open_files)),
      Gauge("process_max_fds", "File descriptors that the process may open.",
            static_cast<double>(max_files.rlim_cur)),
  };
}

}  // namespace nsa
