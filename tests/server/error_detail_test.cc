#include "server/error_detail.h"

#include <gtest/gtest.h>

namespace nsa {
namespace {

TEST(ErrorDetailTest, TravelsOnTheStatus) {
  const absl::Status status =
      WithDetail(absl::InvalidArgumentError("no"), {.param = "top_p", .code = "invalid_value"});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "no");
  EXPECT_EQ(GetDetail(status).param, "top_p");
  EXPECT_EQ(GetDetail(status).code, "invalid_value");
}

TEST(ErrorDetailTest, EitherFieldMayBeEmpty) {
  const absl::Status status = WithDetail(absl::UnavailableError("no"), {.code = "unavailable"});
  EXPECT_EQ(GetDetail(status).param, "");
  EXPECT_EQ(GetDetail(status).code, "unavailable");
  EXPECT_EQ(GetDetail(WithDetail(absl::UnavailableError(""), {.param = "n"})).param, "n");
}

TEST(ErrorDetailTest, AbsentWhereNobodySetIt) {
  EXPECT_EQ(GetDetail(absl::InternalError("x")).code, "");
  EXPECT_EQ(GetDetail(absl::OkStatus()).param, "");
}

TEST(ErrorDetailTest, TheLaterOneReplacesTheEarlier) {
  absl::Status status = WithDetail(absl::InternalError("x"), {.param = "a", .code = "b"});
  status = WithDetail(status, {.code = "c"});
  EXPECT_EQ(GetDetail(status).param, "");
  EXPECT_EQ(GetDetail(status).code, "c");
}

}  // namespace
}  // namespace nsa
