#include "bench/serving/options.h"

#include <gmock/gmock.h>

namespace nsa::bench {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(const std::vector<std::string>& arguments) {
  return std::string(ParseOptions(arguments).status().message());
}

TEST(OptionsTest, ReadsTargetAndFlags) {
  const auto options = ParseOptions({"http://127.0.0.1:8000", "--rate=2.5", "--duration=10",
                                     "--cancel=0.3", "--model=m", "--ttft-bound=200", "--json"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_FALSE(options->grpc);
  EXPECT_EQ(options->host, "127.0.0.1");
  EXPECT_EQ(options->port, "8000");
  EXPECT_EQ(options->workload.rate, 2.5);
  EXPECT_EQ(options->workload.cancelled_share, 0.3);
  EXPECT_EQ(options->duration, absl::Seconds(10));
  EXPECT_EQ(options->model, "m");
  EXPECT_EQ(options->ttft_bound_ms, 200);
  EXPECT_TRUE(options->json);
}

TEST(OptionsTest, ReadsGrpcTargets) {
  const auto options = ParseOptions({"grpc://host:9000", "--concurrency=4", "--calls=8"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_TRUE(options->grpc);
  EXPECT_EQ(options->concurrency, 4);
  EXPECT_EQ(options->num_calls, 8);
}

TEST(OptionsTest, SaysWhatIsWrong) {
  EXPECT_THAT(ErrorOf({"--rate=1", "--calls=1"}), HasSubstr("which server"));
  EXPECT_THAT(ErrorOf({"https://h:1", "--rate=1", "--calls=1"}), HasSubstr("https://h:1"));
  EXPECT_THAT(ErrorOf({"http://h", "--rate=1", "--calls=1"}), HasSubstr("http://h"));
  EXPECT_THAT(ErrorOf({"http://h:1", "--calls=1"}), HasSubstr("--rate and --concurrency"));
  EXPECT_THAT(ErrorOf({"http://h:1", "--rate=1", "--concurrency=1", "--calls=1"}),
              HasSubstr("one of --rate and --concurrency"));
  EXPECT_THAT(ErrorOf({"http://h:1", "--rate=1"}), HasSubstr("--calls or --duration"));
  EXPECT_THAT(ErrorOf({"http://h:1", "--cancel=1.5"}), HasSubstr("--cancel=1.5: allowed: 0 to 1"));
  EXPECT_THAT(ErrorOf({"http://h:1", "--rates=1"}), HasSubstr("unknown argument '--rates=1'"));
  EXPECT_THAT(ErrorOf({"http://h:1", "--rate"}), HasSubstr("unknown argument '--rate'"));
  EXPECT_THAT(ErrorOf({"http://h:1", "--json=1"}), HasSubstr("unknown argument '--json=1'"));
  EXPECT_THAT(ErrorOf({"http://h:1", "--prompt-tokens=8..4"}), HasSubstr("8..4"));
  EXPECT_THAT(ErrorOf({"grpc://h:1", "--rate=1", "--calls=1", "--endpoint=chat"}),
              HasSubstr("for HTTP"));
}

TEST(OptionsTest, HelpListsEveryFlag) {
  const auto options = ParseOptions({"--help"});
  ASSERT_TRUE(options.ok());
  EXPECT_TRUE(options->help);
  EXPECT_THAT(OptionsHelp(), HasSubstr("--output-tokens=LENGTH"));
}

}  // namespace
}  // namespace nsa::bench
