#include "engine/admission.h"

#include <gtest/gtest.h>

namespace nsa {
namespace {

absl::StatusCode Try(Admission* admission, AdmissionLoad wanted, AdmissionLoad waiting,
                     int64_t num_running = 0) {
  return admission->Check(wanted, waiting, num_running).code();
}

using Counts = std::array<int64_t, kNumRejectReasons>;
constexpr auto kOk = absl::StatusCode::kOk;
constexpr auto kNotNow = absl::StatusCode::kResourceExhausted;
constexpr auto kNever = absl::StatusCode::kInvalidArgument;

TEST(AdmissionTest, QueuedRequests) {
  Admission admission({.max_queued_requests = 4});
  EXPECT_EQ(Try(&admission, {4, 400}, {0, 0}, 1000), kOk);
  EXPECT_EQ(Try(&admission, {2, 2}, {2, 2}), kOk);
  EXPECT_EQ(Try(&admission, {2, 2}, {3, 3}), kNotNow);
  EXPECT_EQ(Try(&admission, {1, 1}, {4, 4}), kNotNow);
  EXPECT_EQ(Try(&admission, {5, 5}, {0, 0}), kNever);
  EXPECT_EQ(admission.num_rejected(), (Counts{3, 0, 0, 0}));
  EXPECT_EQ(admission.Check({1, 1}, {4, 4}, 0).message(),
            "4 of at most 4 requests are waiting; 1 more cannot be queued");
}

TEST(AdmissionTest, QueuedTokensButNeverTheOnlyRequest) {
  Admission admission({.max_queued_requests = 10, .max_queued_tokens = 100});
  EXPECT_EQ(Try(&admission, {1, 5000}, {0, 0}), kOk);
  EXPECT_EQ(Try(&admission, {1, 60}, {1, 40}), kOk);
  EXPECT_EQ(Try(&admission, {1, 61}, {1, 40}), kNotNow);
  EXPECT_EQ(Try(&admission, {1, 1}, {1, 5000}), kNotNow);
  EXPECT_EQ(admission.num_rejected(), (Counts{0, 2, 0, 0}));
  EXPECT_EQ(admission.Check({1, 61}, {1, 40}, 0).message(),
            "requests with 40 prompt tokens, of at most 100, are waiting");
}

TEST(AdmissionTest, TokensOfThoseWhoAreQueued) {
  Admission admission({.max_queued_requests = 1, .max_queued_tokens = 100});
  EXPECT_EQ(admission.CheckTokens({5, 5000}, 0).code(), kOk);
  EXPECT_EQ(admission.CheckTokens({5, 60}, 40).code(), kOk);
  EXPECT_EQ(admission.CheckTokens({5, 61}, 40).code(), kNotNow);
  EXPECT_EQ(admission.num_rejected(), (Counts{0, 5, 0, 0}));
}

TEST(AdmissionTest, ConcurrentRequests) {
  Admission admission({.max_queued_requests = 10, .max_concurrent_requests = 6});
  EXPECT_EQ(Try(&admission, {1, 1}, {2, 2}, 3), kOk);
  EXPECT_EQ(Try(&admission, {1, 1}, {2, 2}, 4), kNotNow);
  EXPECT_EQ(Try(&admission, {6, 6}, {0, 0}, 0), kOk);
  EXPECT_EQ(Try(&admission, {7, 7}, {0, 0}, 0), kNever);
  EXPECT_EQ(admission.num_rejected(), (Counts{0, 0, 1, 0}));
  EXPECT_EQ(admission.Check({2, 2}, {2, 2}, 3).message(),
            "5 of at most 6 requests are in progress; 2 more cannot be taken");
}

}  // namespace
}  // namespace nsa
