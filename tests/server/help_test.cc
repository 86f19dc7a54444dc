#include "server/help.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/config.h"

namespace nsa {
namespace {

TEST(HelpTest, HasEveryFlagOnceAndFitsAPage) {
  const std::vector<std::string> lines = absl::StrSplit(ServerHelp(), '\n');
  for (const FlagHelp& flag : FlagHelps()) {
    int num_lines = 0;
    const std::string start = absl::StrCat("  --", flag.name, "=", flag.value, " ");
    for (const std::string& line : lines) num_lines += line.starts_with(start) ? 1 : 0;
    EXPECT_EQ(num_lines, 1) << flag.name;
  }
  for (const std::string& line : lines) {
    EXPECT_LE(line.size(), 100U) << line;
    EXPECT_FALSE(line.ends_with(' ')) << line;
  }
}

TEST(HelpTest, LongHelpsGoOnBelowTheirBeginning) {
  const std::string help = ServerHelp();
  const size_t begin = help.find("  --max-chunk-tokens=N");
  ASSERT_NE(begin, std::string::npos);
  const std::vector<std::string> lines = absl::StrSplit(help.substr(begin, 300), '\n');
  EXPECT_EQ(lines[0].find("prompt tokens"), lines[1].find_first_not_of(' '));
}

TEST(HelpTest, SectionsStandInTheirPlaces) {
  const std::string help = ServerHelp();
  size_t before = 0;
  for (const char* text :
       {"\n\nModel\n  --model=", "\n\nAddresses\n  --host=", "\n\nDevice and memory\n  --device=",
        "\n\nSteps and context\n  --threads=",
        "RESOURCE_EXHAUSTED over gRPC\n  --max-queued-requests=",
        "\n\nLife and end\n  --drain-timeout=", "\n\nAccess\n  --api-key-file=",
        "\n\nLimits\n  --max-body-bytes=", "\n\nLog\n  --log-format=", "\n\nSignals\n"}) {
    const size_t place = help.find(text);
    ASSERT_NE(place, std::string::npos) << text;
    EXPECT_GT(place, before) << text;
    before = place;
  }
}

}  // namespace
}  // namespace nsa
