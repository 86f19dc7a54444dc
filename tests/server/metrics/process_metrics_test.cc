#include "server/metrics/process_metrics.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <ctime>
#include <fstream>
#include <map>
#include <string>

#include "prometheus/metric_type.h"

namespace nsa {
namespace {

// name: value
std::map<std::string, double> Collected(const ProcessMetrics& metrics) {
  std::map<std::string, double> values;
  for (const prometheus::MetricFamily& family : metrics.Collect()) {
    EXPECT_EQ(family.metric.size(), 1) << family.name;
    EXPECT_TRUE(family.metric[0].label.empty()) << family.name;
    const bool counts = family.type == prometheus::MetricType::Counter;
    EXPECT_EQ(counts, family.name == "process_cpu_seconds_total");
    values[family.name] = counts ? family.metric[0].counter.value : family.metric[0].gauge.value;
  }
  return values;
}

TEST(ParseProcessStat, ANameMayHaveSpacesAndBrackets) {
  const auto stat = ParseProcessStat(
      "42 (a) S (b c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 12000 1048576 3 99 1 1\n");
  ASSERT_TRUE(stat.has_value());
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  EXPECT_EQ(stat->cpu_seconds, 200 / ticks);
  EXPECT_EQ(stat->start_seconds, 12000 / ticks);
  EXPECT_EQ(stat->virtual_bytes, 1048576);
  EXPECT_EQ(stat->resident_bytes, 3 * sysconf(_SC_PAGESIZE));
}

TEST(ParseProcessStat, OtherTextsAreNone) {
  for (const char* text : {"", "42", "42 (a)", "42 (a) S 1 2 3",
                           "42 (a) S 1 2 3 4 5 6 7 8 9 10 x 50 13 14 15 16 17 18 12000 1 3"}) {
    EXPECT_FALSE(ParseProcessStat(text).has_value()) << text;
  }
}

TEST(ProcessMetrics, CpuTimeIsCounted) {
  const ProcessMetrics metrics;
  const double before = Collected(metrics)["process_cpu_seconds_total"];
  const std::clock_t start = std::clock();  // CPU time, as it is that of the process
  while (std::clock() - start < CLOCKS_PER_SEC / 5) {
  }
  const double spent = Collected(metrics)["process_cpu_seconds_total"] - before;
  EXPECT_GE(spent, 0.15);
  EXPECT_LE(Collected(metrics)["process_cpu_seconds_total"],
            0.05 + static_cast<double>(std::clock()) / CLOCKS_PER_SEC);
}

TEST(ProcessMetrics, MemoryIsResidentOnceItIsTouched) {
  constexpr size_t kBytes = 64 << 20, kTolerance = kBytes / 8;
  const ProcessMetrics metrics;
  auto before = Collected(metrics);
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto after = Collected(metrics);
  munmap(memory, kBytes);
  for (const char* name : {"process_resident_memory_bytes", "process_virtual_memory_bytes"}) {
    EXPECT_GT(before[name], 0);
    EXPECT_NEAR(after[name] - before[name], kBytes, kTolerance) << name;
  }
}

TEST(ProcessMetrics, DescriptorsAndTheirLimit) {
  const ProcessMetrics metrics;
  const double before = Collected(metrics)["process_open_fds"];
  EXPECT_GE(before, 3);
  const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(Collected(metrics)["process_open_fds"], before + 1);
  close(file);
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlimit lower = {.rlim_cur = 77, .rlim_max = limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &lower), 0);
  EXPECT_EQ(Collected(metrics)["process_max_fds"], 77);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

TEST(ProcessMetrics, TheStartIsThatOfTheKernel) {
  double boot_time = 0;  // whole seconds
  std::ifstream file("/proc/stat");
  for (std::string word; file >> word;) {
    if (word == "btime") file >> boot_time;
  }
  std::string line;
  std::getline(std::ifstream("/proc/self/stat"), line);
  const ProcessMetrics metrics;
  const double start = Collected(metrics)["process_start_time_seconds"];
  EXPECT_NEAR(start, boot_time + ParseProcessStat(line)->start_seconds, 2);
  EXPECT_EQ(Collected(metrics)["process_start_time_seconds"], start);
}

}  // namespace
}  // namespace nsa
