#include "engine/constraint/string_formats.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "engine/constraint/constraint_compiler.h"
#include "tests/engine/constraint/vocabulary.h"

namespace nsa {
namespace {

struct FormatCase {
  const char* format;
  std::vector<std::string> good;
  std::vector<std::string> bad;
};

TEST(StringFormatsTest, EachFormatTakesItsTexts) {
  const Vocabulary vocabulary(300);
  ConstraintCompiler compiler(vocabulary.table, {}, 1 << 20);
  const FormatCase cases[] = {
      {"date",
       {"2024-02-29", "2000-02-29", "2023-12-31"},
       {"2023-02-29", "1900-02-29", "2024-04-31", "2024-13-01", "2024-1-1", "24-01-01"}},
      {"time",
       {"00:00:00Z", "23:59:59.123456789+14:00"},
       {"24:00:00Z", "12:60:00Z", "12:00:60Z", "12:00:00", "12:00Z"}},
      {"date-time",
       {"2024-02-29T12:00:00-08:00"},
       {"2024-02-29 12:00:00Z", "2024-02-29", "2023-02-29T12:00:00Z"}},
      {"uuid",
       {"123e4567-e89b-12d3-a456-426614174000"},
       {"123e4567e89b12d3a456426614174000", "123e4567-e89b-12d3-a456-42661417400g"}},
      {"email",
       {"a@b.c", "a.b+{c}@d-e.org"},
       {"a@", "@b", "a..b@c", "a b@c", "a@b@c", ".a@b", "a@-b"}},
      {"hostname", {"a", "A1.b-c.d"}, {"", ".", "-a", "a-", "a..b", std::string(64, 'a')}},
      {"ipv4",
       {"0.0.0.0", "255.255.255.255", "1.20.199.249"},
       {"256.1.1.1", "1.1.1", "01.1.1.1", "1.1.1.1."}},
  };
  for (const FormatCase& test : cases) {
    ASSERT_FALSE(constraint::FormatRegex(test.format).empty());
    const auto compiled = compiler.Compile(
        {.kind = ConstraintKind::kJsonSchema,
         .source = absl::StrCat(R"({"type": "string", "format": ")", test.format, "\"}")});
    ASSERT_TRUE(compiled.ok()) << compiled.status();
    for (const std::string& text : test.good) {
      EXPECT_TRUE(Accepts(ConstraintState(*compiled), vocabulary, absl::StrCat("\"", text, "\"")))
          << text;
    }
    for (const std::string& text : test.bad) {
      EXPECT_FALSE(Accepts(ConstraintState(*compiled), vocabulary, absl::StrCat("\"", text, "\"")))
          << text;
    }
  }
}

TEST(StringFormatsTest, AnUnknownFormatHasNoExpression) {
  EXPECT_TRUE(constraint::FormatRegex("color").empty());
  EXPECT_TRUE(constraint::FormatRegex("").empty());
}

}  // namespace
}  // namespace nsa
