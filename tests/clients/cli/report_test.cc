#include "clients/cli/report.h"

#include <gtest/gtest.h>

namespace nsa::cli {
namespace {

TEST(ReportTest, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(3 << 19), "1.5 MiB");
  EXPECT_EQ(FormatBytes(int64_t{5} << 50), "5120.0 TiB");
}

TEST(ReportTest, RatesAndRatio) {
  v1::Usage usage;
  usage.set_prompt_tokens(1000);
  usage.set_completion_tokens(21);
  usage.set_queue_seconds(0.25);
  usage.set_prefill_seconds(2);
  usage.set_decode_seconds(0.5);
  usage.set_kv_read_bytes(1 << 20);
  usage.set_kv_dense_bytes(5 << 19);
  EXPECT_EQ(
      FormatReport(usage),
      "21 tokens, 40.0 tokens/s; prompt 1000 tokens, 500 tokens/s; queue 0.25 s, "
      "prefill 2.00 s, decode 0.50 s\n"
      "KV cache read: 1.0 MiB; full attention would have read 2.5 MiB (2.50 times as much)\n");
}

TEST(ReportTest, NothingIsDividedByZero) {
  EXPECT_EQ(FormatReport(v1::Usage()),
            "0 tokens, 0.0 tokens/s; prompt 0 tokens, 0 tokens/s; queue 0.00 s, prefill 0.00 s, "
            "decode 0.00 s\n"
            "KV cache read: 0 B; full attention would have read 0 B\n");
}

TEST(ReportTest, StatusNames) {
  EXPECT_EQ(StatusName(grpc::StatusCode::OK), "OK");
  EXPECT_EQ(StatusName(grpc::StatusCode::INVALID_ARGUMENT), "INVALID_ARGUMENT");
  EXPECT_EQ(StatusName(grpc::StatusCode::RESOURCE_EXHAUSTED), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(StatusName(grpc::StatusCode::UNAVAILABLE), "UNAVAILABLE");
  EXPECT_EQ(StatusName(grpc::StatusCode::UNAUTHENTICATED), "UNAUTHENTICATED");
  EXPECT_EQ(StatusName(static_cast<grpc::StatusCode>(99)), "code 99");
}

TEST(ReportTest, Progress) {
  v1::Progress progress;
  progress.set_prompt_tokens_done(512);
  progress.set_prompt_tokens_total(8000);
  EXPECT_EQ(FormatProgress(progress), "prefill 512 / 8000 tokens");
}

}  // namespace
}  // namespace nsa::cli
