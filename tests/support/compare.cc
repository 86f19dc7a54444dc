#include "tests/support/compare.h"

#include <cmath>
#include <cstring>

namespace nsa::testing {
namespace {

bool SameKind(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  if (std::isinf(a) || std::isinf(b)) return a == b;
  return true;
}

struct Totals {
  double dot = 0, norm_a = 0, norm_b = 0;
  void Add(double a, double b) {
    dot += a * b;
    norm_a += a * a;
    norm_b += b * b;
  }
  double Cosine() const {
    if (norm_a == 0 || norm_b == 0) return norm_a == norm_b ? 1 : 0;
    return dot / std::sqrt(norm_a * norm_b);
  }
};

}  // namespace

Tolerance ToleranceOf(DType dtype, Tolerance f32) {
  const double units = dtype == DType::kBF16 ? 0x1p-7 : dtype == DType::kF16 ? 0x1p-10 : 0;
  return {std::max(f32.absolute, units * 0.01), std::max(f32.relative, units)};
}

::testing::AssertionResult IsClose(const Tensor& actual, const std::vector<double>& expected,
                                   Tolerance tolerance) {
  if (actual.num_elements() != static_cast<int64_t>(expected.size())) {
    return ::testing::AssertionFailure()
           << actual.num_elements() << " elements, expected " << expected.size();
  }
  double worst_excess = 0;
  int64_t worst = -1;
  Totals totals;
  for (int64_t i = 0; i < actual.num_elements(); ++i) {
    const double a = actual.At(i), b = expected[static_cast<size_t>(i)];
    if (!SameKind(a, b)) {
      return ::testing::AssertionFailure() << "element " << i << " is " << a << ", expected " << b;
    }
    if (!std::isfinite(a)) continue;
    const double allowed = std::max(tolerance.absolute, tolerance.relative * std::fabs(b));
    const double excess = std::fabs(a - b) / allowed;
    if (excess > worst_excess) worst_excess = excess, worst = i;
    totals.Add(a, b);
  }
  if (worst_excess > 1) {
    return ::testing::AssertionFailure()
           << "worst element " << worst << " of " << actual.view().ToString() << " is "
           << actual.At(worst) << ", expected " << expected[static_cast<size_t>(worst)] << ": "
           << worst_excess << " times the tolerance";
  }
  // Cosine says nothing about vectors that are as small as the tolerance itself.
  const double noise = tolerance.absolute * std::sqrt(static_cast<double>(expected.size()));
  const double min_cosine = 1 - std::max(1e-6, tolerance.relative * tolerance.relative);
  if (std::sqrt(totals.norm_b) > 1e3 * noise && totals.Cosine() < min_cosine) {
    return ::testing::AssertionFailure() << "cosine " << totals.Cosine();
  }
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult IsIdentical(const Tensor& actual, const Tensor& expected) {
  const TensorView &a = actual.view(), &b = expected.view();
  if (a.dtype() != b.dtype() || a.num_bytes() != b.num_bytes()) {
    return ::testing::AssertionFailure() << a.ToString() << " against " << b.ToString();
  }
  const int64_t element_bytes = DTypeBytes(a.dtype());
  for (int64_t i = 0; i < a.num_elements(); ++i) {
    const auto* pa = static_cast<const uint8_t*>(a.raw()) + i * element_bytes;
    const auto* pb = static_cast<const uint8_t*>(b.raw()) + i * element_bytes;
    if (std::memcmp(pa, pb, static_cast<size_t>(element_bytes)) != 0) {
      return ::testing::AssertionFailure() << "element " << i << " of " << a.ToString() << " is "
                                           << actual.At(i) << ", expected " << expected.At(i);
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace nsa::testing
