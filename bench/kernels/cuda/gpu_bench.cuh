#pragma once
// What the GPU benchmarks in C++ share: device memory, medians of events, the read bandwidth, and
// results as JSON with the facts of their run.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "kernels/cuda/context.h"
#include "kernels/device.h"

#define CUDA_OK(call)                                                              \
  do {                                                                             \
    const cudaError_t error = (call);                                              \
    NSA_CHECK(error == cudaSuccess) << #call << ": " << cudaGetErrorString(error); \
  } while (false)

namespace nsa {

class Buffer {
 public:
  explicit Buffer(int64_t bytes) : bytes_(bytes) {
    CUDA_OK(cudaMalloc(&data_, bytes));
    CUDA_OK(cudaMemset(data_, 0xff, bytes));
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  void* get() const { return data_; }
  template <typename T>
  std::vector<T> Read() const {
    std::vector<T> host(bytes_ / sizeof(T));
    CUDA_OK(cudaMemcpy(host.data(), data_, bytes_, cudaMemcpyDeviceToHost));
    return host;
  }
  template <typename T>
  void Write(const std::vector<T>& host) {
    CUDA_OK(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  }

 private:
  void* data_ = nullptr;
  int64_t bytes_;
};

inline cudaStream_t MakeStream() {
  cudaStream_t stream;
  CUDA_OK(cudaStreamCreate(&stream));
  return stream;
}

// Median of `repeats` calls of `enqueue` on the stream, after some that do not count.
template <typename F>
double MedianMs(cudaStream_t stream, int repeats, F&& enqueue) {
  constexpr int kWarmUps = 3;
  cudaEvent_t begin, end;
  CUDA_OK(cudaEventCreate(&begin));
  CUDA_OK(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < repeats + kWarmUps; ++i) {
    CUDA_OK(cudaEventRecord(begin, stream));
    enqueue();
    CUDA_OK(cudaEventRecord(end, stream));
    CUDA_OK(cudaEventSynchronize(end));
    float ms = 0;
    CUDA_OK(cudaEventElapsedTime(&ms, begin, end));
    if (i >= kWarmUps) times.push_back(ms);
  }
  CUDA_OK(cudaEventDestroy(begin));
  CUDA_OK(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// us of one launch of a graph of what `enqueue` does, the median of 20.
template <typename F>
double GraphUs(cudaStream_t stream, F&& enqueue) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  enqueue();
  CUDA_OK(cudaStreamSynchronize(stream));
  CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  enqueue();
  CUDA_OK(cudaStreamEndCapture(stream, &graph));
  CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
  const double ms = MedianMs(stream, 20, [&] { CUDA_OK(cudaGraphLaunch(exec, stream)); });
  CUDA_OK(cudaGraphExecDestroy(exec));
  CUDA_OK(cudaGraphDestroy(graph));
  return ms * 1e3;
}

__global__ void ReadAll(const uint4* data, int64_t num, uint32_t* sink) {
  uint32_t sum = 0;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < num;
       i += int64_t{gridDim.x} * blockDim.x) {
    const uint4 v = data[i];
    sum ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (sum == 0x12345678u) *sink = sum;
}

template <typename T>
__global__ void FillRandom(T* data, int64_t num, float scale, uint32_t seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < num;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t bits = static_cast<uint32_t>(i) * 2654435761u + seed;
    bits = (bits ^ bits >> 15) * 2246822519u, bits ^= bits >> 13;
    data[i] = T((static_cast<float>(bits >> 8) / 8388608.0F - 1.0F) * scale);
  }
}

// Of device memory, by a plain kernel.
inline double ReadBytesPerUs(const cuda::Context& context) {
  const int64_t bytes = int64_t{2} << 30;
  const Buffer data(bytes), sink(4);
  const double us = GraphUs(context.stream(), [&] {
    ReadAll<<<context.num_sms() * 8, 512, 0, context.stream()>>>(
        static_cast<const uint4*>(data.get()), bytes / 16, static_cast<uint32_t*>(sink.get()));
  });
  return static_cast<double>(bytes) / us;
}

// Rows of results for the file of the argument --json=FILE, if there is one.
class Results {
 public:
  // Ends the program where the arguments are others.
  Results(int argc, char** argv) {
    constexpr std::string_view kJson = "--json=";
    if (argc == 1) return;
    if (argc > 2 || !std::string_view(argv[1]).starts_with(kJson)) {
      std::fprintf(stderr, "usage: %s [--json=FILE]\n", argv[0]);
      std::exit(1);
    }
    file_.open(argv[1] + kJson.size());
    NSA_CHECK(file_.good()) << argv[1] << " cannot be written";
    command_ = std::string(argv[0]) + " " + argv[1];
  }
  void Add(const nlohmann::ordered_json& row) { rows_.push_back(row); }
  void Write(double read_bytes_per_us) {
    if (command_.empty()) return;
    cudaDeviceProp properties;
    CUDA_OK(cudaGetDeviceProperties(&properties, 0));
    const std::time_t now = std::time(nullptr);
    char date[16];
    std::strftime(date, sizeof(date), "%F", std::gmtime(&now));
    const nlohmann::ordered_json results = {{"device", properties.name},
                                            {"command", command_},
                                            {"date", date},
                                            {"read_tb_per_s", read_bytes_per_us / 1e6},
                                            {"rows", rows_}};
    file_ << results.dump(1) << "\n" << std::flush;
    NSA_CHECK(file_.good()) << command_ << ": the results cannot be written";
  }

 private:
  std::ofstream file_;
  std::string command_;
  nlohmann::ordered_json rows_ = nlohmann::ordered_json::array();
};

// What a benchmark of the GPU's operations has.
class GpuBench {
 public:
  explicit GpuBench(Results& results)
      : results_(results),
        context_(0, MakeStream()),
        stream_{.device = DeviceType::kCuda, .cuda = &context_},
        read_bytes_per_us_(ReadBytesPerUs(context_)) {
    std::printf("read bandwidth %.2f TB/s\n", read_bytes_per_us_ / 1e6);
  }
  double read_bytes_per_us() const { return read_bytes_per_us_; }

 protected:
  // Numbers in [-scale, scale].
  template <typename T>
  void Fill(void* data, int64_t num, float scale, uint32_t seed) {
    FillRandom<<<1024, 256, 0, context_.stream()>>>(static_cast<T*>(data), num, scale, seed);
    CUDA_OK(cudaGetLastError());
  }

  Results& results_;
  cuda::Context context_;
  Stream stream_;
  double read_bytes_per_us_;
};

}  // namespace nsa
