#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/thread_pool.h"
#include "engine/runtime/device.h"
#include "engine/runtime/memory.h"

namespace nsa {
namespace {

std::string Describe(int num_threads, const std::string& note) {
  return absl::StrCat("CPU, ", num_threads, num_threads == 1 ? " thread" : " threads",
                      note.empty() ? "" : "; ", note);
}

class HostDevice : public Device {
 public:
  HostDevice(int num_threads, const std::string& note)
      : threads_(num_threads), description_(Describe(num_threads, note)) {}

  DeviceType type() const override { return DeviceType::kCpu; }
  const std::string& description() const override { return description_; }
  Stream stream() override { return {.device = DeviceType::kCpu, .threads = &threads_}; }
  void Enter() override {}

  int64_t total_bytes() const override {
    return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  }
  int64_t free_bytes() const override {
    return static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  }
  void* Allocate(int64_t num_bytes) override { return AllocateHost(num_bytes); }
  void Free(void* memory) override { std::free(memory); }
  void* AllocatePinned(int64_t num_bytes) override { return AllocateHost(num_bytes); }
  void FreePinned(void* memory) override { std::free(memory); }

  void Upload(const void* pinned, void* device, int64_t num_bytes) override {
    std::memcpy(device, pinned, static_cast<size_t>(num_bytes));
  }
  void Download(const void* device, void* pinned, int64_t num_bytes) override {
    std::memcpy(pinned, device, static_cast<size_t>(num_bytes));
  }
  void Copy(const void* from, void* to, int64_t num_bytes) override {
    std::memcpy(to, from, static_cast<size_t>(num_bytes));
  }
  void Mark(int /*mark*/) override {}
  absl::Status Await(int /*mark*/) override { return absl::OkStatus(); }

  bool CanRecord() const override { return false; }
  void BeginRecording() override { NSA_CHECK(false) << "the CPU records nothing"; }
  std::unique_ptr<StepGraph> EndRecording() override { return nullptr; }

 private:
  ThreadPool threads_;
  const std::string description_;
};

}  // namespace

std::unique_ptr<Device> OpenHostDevice(int num_threads, const std::string& note) {
  return std::make_unique<HostDevice>(num_threads, note);
}

}  // namespace nsa
