#pragma once
// Device: where a model runs, its memory, and the order of work on it. device_host.cc is the CPU;
// device_cuda.cc a GPU; a build without CUDA links device_no_cuda.cc, whose only GPU is a clear
// error.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/device.h"

namespace nsa {

// Enqueued work that was recorded once, to be enqueued again at the cost of one launch. Addresses
// and sizes are those of the recording.
class StepGraph {
 public:
  virtual ~StepGraph() = default;
  virtual void Launch() = 0;
};

// Not thread-safe. The thread that computes calls Enter first. On the CPU everything that is said
// to be enqueued has happened on return.
class Device {
 public:
  // Of a step that is in flight, and the one after it.
  static constexpr int kNumMarks = 2;

  virtual ~Device() = default;
  virtual DeviceType type() const = 0;
  // For people: "CPU, 16 threads", "cuda:0, NVIDIA H200, sm_90, 139.8 GiB".
  virtual const std::string& description() const = 0;
  // Where kernels run. One and the same for the life of the device.
  virtual Stream stream() = 0;
  // Makes it the current device of the calling thread.
  virtual void Enter() = 0;

  // Of the device's memory, used or not; and of it what is free at present.
  virtual int64_t total_bytes() const = 0;
  virtual int64_t free_bytes() const = 0;
  // Memory of the device, aligned to 256 bytes at least, or null when there is not enough.
  virtual void* Allocate(int64_t num_bytes) = 0;
  virtual void Free(void* memory) = 0;
  // Memory of the host that the device copies from and to without a detour.
  virtual void* AllocatePinned(int64_t num_bytes) = 0;
  virtual void FreePinned(void* memory) = 0;

  // Enqueue a copy from pinned host memory to the device, and back.
  virtual void Upload(const void* pinned, void* device, int64_t num_bytes) = 0;
  virtual void Download(const void* device, void* pinned, int64_t num_bytes) = 0;
  // Enqueues a copy within the device's memory.
  virtual void Copy(const void* from, void* to, int64_t num_bytes) = 0;
  // Sets a mark (0 to kNumMarks - 1) behind everything enqueued so far; Await returns when the work
  // before the mark is done. The error of work that failed is INTERNAL, and the device is lost
  // then: every later Await fails too.
  virtual void Mark(int mark) = 0;
  virtual absl::Status Await(int mark) = 0;

  // Whether work can be recorded; between Begin and EndRecording work is recorded, not done. Null
  // where that failed, which leaves an error for Await.
  virtual bool CanRecord() const = 0;
  virtual void BeginRecording() = 0;
  virtual std::unique_ptr<StepGraph> EndRecording() = 0;
};

// What --device asks for.
struct DeviceChoice {
  enum class Kind : uint8_t { kAuto, kCpu, kCuda };
  Kind kind = Kind::kCpu;
  int index = 0;  // of the GPU
};

// Opens the device of `choice`; the CPU computes with num_threads threads. kAuto takes GPU 0, or
// the CPU where that fails, and its description then says why. Errors, each with what was needed
// and what was found: NOT_FOUND: no GPU, or none of this index. UNIMPLEMENTED: this build has no
// CUDA. FAILED_PRECONDITION: the driver or the GPU is too old for it. RESOURCE_EXHAUSTED: the GPU
// has no memory left.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const DeviceChoice& choice, int num_threads);

// The two kinds of device behind OpenDevice. `note` follows the CPU's description.
std::unique_ptr<Device> OpenHostDevice(int num_threads, const std::string& note);
absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int index);

}  // namespace nsa
