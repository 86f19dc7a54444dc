#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace nsa {
namespace {

using ::testing::EndsWith;
using ::testing::StartsWith;

LogRecord At(std::string_view message) {
  return {
      .level = LogLevel::kWarning, .time = absl::FromUnixMillis(1700000000123), .message = message};
}

LogFields SomeFields() {
  return LogFields()
      .Text("name", "value")
      .Text("sentence", "two words")
      .Text("empty", "")
      .Number("count", -7)
      .Milliseconds("queue_ms", absl::Microseconds(1500))
      .Milliseconds("never_ms", absl::InfiniteDuration())
      .Seconds("seconds", absl::Milliseconds(2));
}

TEST(FormatLog, AsText) {
  const std::string line = FormatLog(LogFormat::kText, At("hello"), SomeFields());
  EXPECT_THAT(line, StartsWith("W "));
  EXPECT_THAT(line, EndsWith(".123 hello name=value sentence=\"two words\" empty=\"\" count=-7 "
                             "queue_ms=1.500 seconds=0.002\n"));
}

TEST(FormatLog, AsJson) {
  EXPECT_EQ(FormatLog(LogFormat::kJson, At("hello"), SomeFields()),
            R"({"time":"2023-11-14T22:13:20.123Z","level":"warning","message":"hello",)"
            R"("name":"value","sentence":"two words","empty":"","count":-7,"queue_ms":1.500,)"
            R"("seconds":0.002})"
            "\n");
}

// A client's text must not be able to end a line, a string or a field.
TEST(FormatLog, TextCannotLeaveItsPlace) {
  const std::string evil = "a\"b\\c\nd\re\tf" + std::string(1, '\0') + "\x1b[2J\x7f g=h";
  const std::string line =
      FormatLog(LogFormat::kText, At(evil), LogFields().Text("x", evil).Text("y", "k=v"));
  EXPECT_THAT(line, EndsWith(R"(a"b\c\nd\re\tf\u0000\u001b[2J\u007f g=h)"
                             R"( x="a\"b\\c\nd\re\tf\u0000\u001b[2J\u007f g=h" y="k=v")"
                             "\n"));
}

TEST(JsonString, EscapesEveryByteThatItMust) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string json = JsonString(std::string(1, static_cast<char>(byte)));
    for (const char c : json) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << byte;
    if (byte < 0x80) continue;
    EXPECT_EQ(json, "\"\xEF\xBF\xBD\"") << byte;
  }
  EXPECT_EQ(JsonString("\"\\"), R"("\"\\")");
  EXPECT_EQ(JsonString("\n\r\t\x01"), R"("\n\r\t\u0001")");
  EXPECT_EQ(JsonString("é€😀"), "\"é€😀\"");
  EXPECT_EQ(JsonString("cut \xE2\x82"), "\"cut \xEF\xBF\xBD\"");
  EXPECT_EQ(JsonString("\xED\xA0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

TEST(WriteLog, WritesOneLineInTheFormatThatIsSet) {
  testing::internal::CaptureStderr();
  NSA_LOG_INFO << "as " << 1;
  SetLogFormat(LogFormat::kJson);
  NSA_LOG_ERROR << "as " << 2;
  EXPECT_EQ(GetLogFormat(), LogFormat::kJson);
  SetLogFormat(LogFormat::kText);
  const std::string lines = testing::internal::GetCapturedStderr();
  EXPECT_THAT(lines, StartsWith("I "));
  EXPECT_THAT(lines, testing::HasSubstr(" as 1\n{\"time\":\""));
  EXPECT_THAT(lines, EndsWith("\"level\":\"error\",\"message\":\"as 2\"}\n"));
}

}  // namespace
}  // namespace nsa
