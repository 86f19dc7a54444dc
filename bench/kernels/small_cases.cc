#include <string>

#include "bench/kernels/cases.h"
#include "kernels/nsa.h"
#include "kernels/sampling.h"
#include "kernels/transformer.h"

namespace nsa::bench {
namespace {

std::vector<float> Numbers(int64_t num) {
  std::vector<float> numbers(static_cast<size_t>(num));
  for (int64_t i = 0; i < num; ++i) {
    numbers[i] = static_cast<float>((i * 2654435761U >> 8) % 20001) / 1000.0F - 10.0F;
  }
  return numbers;
}

Result SampleCase(const BenchContext& context, const std::string& name,
                  const SamplingParams& params, int32_t num_top_logprobs) {
  constexpr int64_t kVocab = 128 * 1024;
  std::vector<float> logits = Numbers(kVocab);
  int32_t token = 0;
  float logprob = 0;
  std::vector<int32_t> top_tokens(kMaxTopLogprobs);
  std::vector<float> top_logprobs(kMaxTopLogprobs);
  const SampleRow row{.params = params, .num_top_logprobs = num_top_logprobs};
  const SampleArgs args{
      .logits = TensorView(logits.data(), DType::kF32, {1, kVocab}),
      .rows = {&row, 1},
      .tokens = TensorView(&token, DType::kI32, {1}),
      .logprobs = TensorView(&logprob, DType::kF32, {1}),
      .top_tokens = TensorView(top_tokens.data(), DType::kI32, {1, kMaxTopLogprobs}),
      .top_logprobs = TensorView(top_logprobs.data(), DType::kF32, {1, kMaxTopLogprobs})};
  const double seconds = MedianSeconds([&] { SampleTokens(args, {.threads = &context.threads}); });
  return MakeResult(context, "sample " + name, "1 row of 131072", seconds, 0, 0);
}

std::vector<Result> TransformerCases(const BenchContext& context, int64_t num_tokens) {
  constexpr int64_t kHidden = 2048;
  std::vector<float> x = Numbers(num_tokens * kHidden), y = Numbers(num_tokens * kHidden);
  std::vector<float> sum = x, gate_up = Numbers(2 * num_tokens * kHidden);
  const TensorView xv(x.data(), DType::kF32, {num_tokens, kHidden});
  const TensorView yv(y.data(), DType::kF32, {num_tokens, kHidden});
  const TensorView gate_up_view(gate_up.data(), DType::kF32, {num_tokens, 2 * kHidden});
  const TensorView weight(gate_up.data(), DType::kF32, {kHidden});
  const TensorView sum_view(sum.data(), DType::kF32, {num_tokens, kHidden});
  const Stream stream{.threads = &context.threads};
  const std::string shape = std::to_string(num_tokens) + " x 2048";
  std::vector<Result> results;
  const auto add = [&](const char* op, absl::FunctionRef<void()> body) {
    results.push_back(MakeResult(context, op, shape, MedianSeconds(body), 0, 0));
  };
  add("rms norm",
      [&] { AddRmsNorm({.x = xv, .weight = weight, .out = yv, .epsilon = 1e-5F}, stream); });
  add("add, rms norm", [&] {
    AddRmsNorm({.x = sum_view, .y = xv, .weight = weight, .out = yv, .epsilon = 1e-5F}, stream);
  });
  add("swiglu", [&] { SwiGlu({gate_up_view, yv}, stream); });
  return results;
}

}  // namespace

std::vector<Result> SmallCases(const BenchContext& context) {
  std::vector<Result> results;
  for (int64_t num_tokens : {1, 512}) {
    for (Result& result : TransformerCases(context, num_tokens)) {
      results.push_back(std::move(result));
    }
  }
  results.push_back(SampleCase(context, "greedy", {.temperature = 0}, -1));
  results.push_back(SampleCase(context, "greedy, logprobs", {.temperature = 0}, 5));
  results.push_back(SampleCase(context, "temperature", {}, -1));
  results.push_back(SampleCase(context, "top_k 50", {.top_k = 50}, -1));
  results.push_back(SampleCase(context, "top_p 0.9", {.top_p = 0.9F}, -1));
  return results;
}

}  // namespace nsa::bench
