#include "engine/text/hf/post_processor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace nsa::hf {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Json = nlohmann::json;

absl::StatusOr<std::vector<int32_t>> Parse(const std::string& text) {
  const Json json = Json::parse(text);
  return ParseTextPrefix(JsonNode(&json, "post_processor"));
}

std::string Template(const std::string& single) {
  return R"({"type": "TemplateProcessing", "single": )" + single +
         R"(, "special_tokens": {"<s>": {"id": "<s>", "ids": [7]},
                                 "<two>": {"id": "<two>", "ids": [8, 9]}}})";
}

constexpr char kBos[] = R"({"SpecialToken": {"id": "<s>", "type_id": 0}})";
constexpr char kTwo[] = R"({"SpecialToken": {"id": "<two>", "type_id": 0}})";
constexpr char kText[] = R"({"Sequence": {"id": "A", "type_id": 0}})";

std::string List(const std::vector<std::string>& parts) {
  std::string list;
  for (const std::string& part : parts) list += (list.empty() ? "[" : ", ") + part;
  return list + "]";
}

TEST(PostProcessorTest, TokensInFront) {
  EXPECT_THAT(*Parse("null"), IsEmpty());
  EXPECT_THAT(*Parse(R"({"type": "ByteLevel", "trim_offsets": true})"), IsEmpty());
  EXPECT_THAT(*Parse(Template(List({kText}))), IsEmpty());
  EXPECT_THAT(*Parse(Template(List({kBos, kText}))), ElementsAre(7));
  EXPECT_THAT(*Parse(Template(List({kTwo, kBos, kText}))), ElementsAre(8, 9, 7));
  const std::string sequence = R"({"type": "Sequence", "processors": )";
  EXPECT_THAT(
      *Parse(sequence + List({R"({"type": "ByteLevel"})", Template(List({kBos, kText}))}) + "}"),
      ElementsAre(7));
  EXPECT_THAT(
      *Parse(sequence + List({Template(List({kBos, kText})), Template(List({kTwo, kText}))}) + "}"),
      ElementsAre(8, 9, 7));
}

TEST(PostProcessorTest, OthersAreNamed) {
  const auto refused = [](const std::string& text, const std::string& words) {
    const absl::Status status = Parse(text).status();
    EXPECT_FALSE(status.ok()) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  };
  refused(Template(List({kBos, kText, kBos})), "single[2].SpecialToken");
  refused(Template(List({kText, kText})), "single[1]");
  refused(Template(List({kBos})), "post_processor.single");
  refused(Template(List({R"({"SpecialToken": {"id": "<none>"}})", kText})),
          "single[0].SpecialToken.id");
  refused(Template(List({"{}"})), "single[0]");
  refused(R"({"type": "BertProcessing"})", "post_processor.type is \"BertProcessing\"");
  refused(R"({})", "post_processor.type is absent");
}

}  // namespace
}  // namespace nsa::hf
