#include "server/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/support/test_certificate.h"

namespace nsa {
namespace {

using testing::HasSubstr;
using testing::Not;

ApiKeys Keys(const std::string& text) {
  auto keys = ApiKeys::Parse(text, "keys.txt");
  EXPECT_TRUE(keys.ok()) << keys.status();
  return keys.ok() ? *keys : ApiKeys();
}

std::string Refusal(const std::string& text) {
  const auto keys = ApiKeys::Parse(text, "keys.txt");
  EXPECT_EQ(keys.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(keys.status().message());
}

TEST(ApiKeysTest, SkipsCommentsBlanksAndLineEndings) {
  const ApiKeys keys = Keys("# team a\n\nkey-of-team-a\r\n  key-of-team-b  \n");
  EXPECT_EQ(keys.size(), 2U);
  EXPECT_TRUE(keys.CheckAuthorization("Bearer key-of-team-a").ok());
  EXPECT_TRUE(keys.CheckAuthorization("bearer   key-of-team-b ").ok());
}

TEST(ApiKeysTest, EveryKeyHasANameOfItsOwnWhichIsNotTheKey) {
  const ApiKeys keys = Keys("key-of-team-a\nkey-of-team-b\n");
  const std::string a = *keys.CheckAuthorization("Bearer key-of-team-a");
  const std::string b = *keys.CheckAuthorization("Bearer key-of-team-b");
  EXPECT_NE(a, b);
  EXPECT_EQ(a.size(), 64U);
  EXPECT_THAT(a, Not(HasSubstr("team")));
  EXPECT_EQ(a, *keys.CheckAuthorization("Bearer key-of-team-a"));
}

TEST(ApiKeysTest, RefusesCallersWithoutAKey) {
  const ApiKeys keys = Keys("key-of-team-a\n");
  for (const char* header :
       {"", "Bearer", "Bearer ", "Bearer key-of-team-", "Bearer key-of-team-aa",
        "Bearer KEY-OF-TEAM-A", "Basic key-of-team-a", "key-of-team-a", "Bearerkey-of-team-a",
        "Bearer key-of-team-a, Bearer x"}) {
    const absl::Status status = keys.CheckAuthorization(header).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << header;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("team"))) << header;
  }
  EXPECT_EQ(keys.CheckAuthorization(std::nullopt).status().code(),
            absl::StatusCode::kUnauthenticated);
  const std::string long_key = "Bearer " + std::string(1 << 20, 'k');
  EXPECT_FALSE(keys.CheckAuthorization(long_key).ok());
}

TEST(ApiKeysTest, LimitsAreNamedWithTheLineAndWithoutTheKey) {
  const std::string shortest(ApiKeys::kMinKeyBytes, 'k'), longest(ApiKeys::kMaxKeyBytes, 'k');
  EXPECT_EQ(Keys(shortest + "\n" + longest).size(), 2U);
  EXPECT_EQ(Refusal("# c\n" + shortest.substr(1)),
            "keys.txt: line 2: the key has 7 characters; allowed: 8 to 512");
  EXPECT_EQ(Refusal(longest + "k"),
            "keys.txt: line 1: the key has 513 characters; allowed: 8 to 512");
  EXPECT_EQ(Refusal("key of team a"),
            "keys.txt: line 1: the key has characters other than visible ASCII");
  EXPECT_EQ(Refusal("# nothing\n"), "keys.txt: there is no key in it");
  std::string many;
  for (size_t i = 0; i < ApiKeys::kMaxKeys; ++i) absl::StrAppend(&many, "key-", 100000 + i, "\n");
  EXPECT_EQ(Keys(many).size(), ApiKeys::kMaxKeys);
  EXPECT_EQ(Refusal(many + "one-more-key"), "keys.txt: line 4097: there are more than 4096 keys");
}

TEST(ApiKeysTest, LoadsAFile) {
  const auto keys = ApiKeys::Load(WriteTestFile("api_keys.txt", "key-of-team-a\n"));
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->size(), 1U);
  EXPECT_EQ(ApiKeys::Load("/nowhere/keys").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace nsa
