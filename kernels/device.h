#pragma once
// Where a kernel runs. Every kernel takes a Stream as its last argument.

#include <cstdint>

#include "base/thread_pool.h"

namespace nsa {

enum class DeviceType : uint8_t { kCpu, kCuda };

struct Stream {
  DeviceType device = DeviceType::kCpu;
  ThreadPool* threads = nullptr;  // CPU: the loop's threads; kernels return when the work is done
  void* cuda_stream = nullptr;    // CUDA: a cudaStream_t; kernels return when the work is enqueued
};

}  // namespace nsa
