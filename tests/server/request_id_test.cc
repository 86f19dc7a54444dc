#include "server/request_id.h"

#include <gtest/gtest.h>

#include <set>

namespace nsa {
namespace {

TEST(RequestId, AcceptsOneTo128PlainCharacters) {
  EXPECT_TRUE(IsAcceptableRequestId("aZ09._-"));
  EXPECT_TRUE(IsAcceptableRequestId(std::string(128, 'a')));
  EXPECT_FALSE(IsAcceptableRequestId(std::string(129, 'a')));
  for (const char* id : {"", "a b", "a/b", "\xC3\xA9", "a\r\nb", "a:b"}) {
    EXPECT_FALSE(IsAcceptableRequestId(id)) << id;
  }
}

TEST(NewId, IsUniqueAndAcceptable) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(NewId("req-"));
  EXPECT_EQ(ids.size(), 1000U);
  EXPECT_EQ(ids.begin()->size(), 28U);
  EXPECT_TRUE(IsAcceptableRequestId(*ids.begin()));
}

constexpr char kTraceId[] = "4bf92f3577b34da6a3ce929d0e0e4736";

TEST(TraceIdOf, TakesWhatTheStandardAllows) {
  for (const char* header : {
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
           // Versions to come: their four first fields are the same.
           "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
           "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what the future brings",
           "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
       }) {
    EXPECT_EQ(TraceIdOf(header), kTraceId) << header;
  }
}

TEST(TraceIdOf, IgnoresWhatIsMalformed) {
  for (const char* header : {
           "",
           "00",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",        // no flags
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",      // short flags
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",    // version 00 ends here
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-02",  // so it does
           "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.02",  // not a dash
           "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",     // forbidden version
           "0X-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
           "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",  // upper case
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
           "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",  // not a digit
           "00-00000000000000000000000000000000-00f067aa0ba902b7-01",  // all zero
           "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
           "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
           "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",  // a dash that strayed
           " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
           "00-4bf92f3577b34da6a3ce929d0e0e47\"6-00f067aa0ba902b7-01",
       }) {
    EXPECT_EQ(TraceIdOf(header), "") << header;
  }
}

}  // namespace
}  // namespace nsa
