#include "server/flag_setters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nsa {
namespace {

using testing::ElementsAre;

TEST(FlagSettersTest, BytesHaveSuffixesAndBounds) {
  ServerConfig config;
  const FlagSetter set = BytesFlag(&ServerConfig::max_body_bytes, 1024, 1 << 20);
  for (const auto& [text, bytes] : std::vector<std::pair<std::string, int64_t>>{
           {"1024", 1024}, {"1KiB", 1024}, {"1.5KiB", 1536}, {"1MiB", 1 << 20}}) {
    EXPECT_TRUE(set(text, &config).ok()) << text;
    EXPECT_EQ(config.max_body_bytes, bytes) << text;
  }
  for (const char* text :
       {"1023", "1048577", "2MiB", "", "KiB", "-1KiB", "nan", "inf", "1 KiB", "1kib", "0x400"}) {
    EXPECT_FALSE(set(text, &config).ok()) << text;
  }
  EXPECT_EQ(config.max_body_bytes, 1 << 20);  // a refused text changes nothing
}

TEST(FlagSettersTest, NumbersHaveBounds) {
  ServerConfig config;
  const FlagSetter set = NumberFlag(&ServerConfig::max_streams, 2, 5);
  EXPECT_TRUE(set("2", &config).ok());
  EXPECT_TRUE(set("5", &config).ok());
  EXPECT_EQ(config.max_streams, 5);
  for (const char* text : {"1", "6", "", "3.5", "x", "99999999999999999999"}) {
    EXPECT_FALSE(set(text, &config).ok()) << text;
  }
  EXPECT_EQ(set("6", &config).message(), "2 to 5");
}

TEST(FlagSettersTest, DurationsAreSeconds) {
  ServerConfig config;
  const FlagSetter set = DurationFlag(&ServerConfig::idle_timeout, 1);
  EXPECT_TRUE(set("1.5s", &config).ok());
  EXPECT_EQ(config.idle_timeout, absl::Milliseconds(1500));
  EXPECT_TRUE(set("86400", &config).ok());
  for (const char* text : {"0.9", "86401", "1m", "", "s", "nan"}) {
    EXPECT_FALSE(set(text, &config).ok()) << text;
  }
}

TEST(FlagSettersTest, OriginsAreSchemesWithHosts) {
  ServerConfig config;
  EXPECT_TRUE(SetCorsOriginsFlag("https://a.example,http://localhost:3000", &config).ok());
  EXPECT_THAT(config.cors_origins, ElementsAre("https://a.example", "http://localhost:3000"));
  EXPECT_TRUE(SetCorsOriginsFlag("*", &config).ok());
  EXPECT_THAT(config.cors_origins, ElementsAre("*"));
  for (const char* text : {"", "a.example", "https://", "://a", "https://a.example/",
                           "https://a.example,", "https://*.example", "https://a b"}) {
    EXPECT_FALSE(SetCorsOriginsFlag(text, &config).ok()) << text;
  }
}

TEST(FlagSettersTest, LogsHaveAFormatAndAChoice) {
  ServerConfig config;
  EXPECT_TRUE(SetLogFormatFlag("json", &config).ok());
  EXPECT_EQ(config.log_format, LogFormat::kJson);
  EXPECT_TRUE(SetLogFormatFlag("text", &config).ok());
  EXPECT_EQ(config.log_format, LogFormat::kText);
  EXPECT_EQ(SetLogFormatFlag("xml", &config).message(), "text, json");
  for (const auto& [text, access_log] :
       {std::pair{"on", AccessLog::kOn}, std::pair{"off", AccessLog::kOff},
        std::pair{"no-probes", AccessLog::kNoProbes}}) {
    EXPECT_TRUE(SetAccessLogFlag(text, &config).ok());
    EXPECT_EQ(config.access_log, access_log);
  }
  EXPECT_EQ(SetAccessLogFlag("", &config).message(), "on, off, no-probes");
}

}  // namespace
}  // namespace nsa
