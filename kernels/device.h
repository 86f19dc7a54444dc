#pragma once
// Where a kernel runs. Every kernel takes a Stream as its last argument.

#include <cstdint>

#include "base/thread_pool.h"

namespace nsa {

namespace cuda {
class Context;  // kernels/cuda/context.h
}  // namespace cuda

enum class DeviceType : uint8_t { kCpu, kCuda };

struct Stream {
  DeviceType device = DeviceType::kCpu;
  ThreadPool* threads = nullptr;  // CPU: the loop's threads; kernels return when the work is done
  cuda::Context* cuda = nullptr;  // CUDA: where kernels run; they return when the work is enqueued
};

}  // namespace nsa
