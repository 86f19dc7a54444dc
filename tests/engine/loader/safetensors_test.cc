#include "engine/loader/safetensors.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/loader/safetensors_bytes.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kTwoTensors[] =
    R"({"__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]},
        "b": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}})";

absl::StatusOr<SafetensorsTable> Parse(const std::vector<uint8_t>& file) {
  return ParseSafetensors(file, "x.safetensors");
}

TEST(ParseSafetensorsTest, FindsTheTensors) {
  const std::vector<uint8_t> file = SafetensorsBytes(kTwoTensors, 28);
  const absl::StatusOr<SafetensorsTable> table = Parse(file);
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->size(), 2U);
  const SafetensorsEntry& a = table->at("a");
  EXPECT_EQ(a.dtype, DType::kF32);
  EXPECT_THAT(a.shape, ElementsAre(2, 3));
  EXPECT_EQ(a.bytes.size(), 24U);
  EXPECT_EQ(a.bytes.data(), file.data() + file.size() - 24);
  const SafetensorsEntry& b = table->at("b");
  EXPECT_EQ(b.dtype, DType::kBF16);
  EXPECT_THAT(b.shape, ElementsAre(2));
  EXPECT_EQ(b.bytes.data(), file.data() + file.size() - 28);
}

TEST(ParseSafetensorsTest, AcceptsAFileWithoutTensors) {
  EXPECT_TRUE(Parse(SafetensorsBytes("{}", 0)).ok());
}

struct Refusal {
  const char* header;
  size_t data_bytes;
  const char* words;
};

TEST(ParseSafetensorsTest, RefusesBadHeaders) {
  const Refusal refusals[] = {
      {"[]", 0, "not a JSON object"},
      {"{", 0, "not a JSON object"},
      {"", 0, "not a JSON object"},
      {R"({"a": 3})", 0, "tensor 'a': is not described by an object"},
      {R"({"__metadata__": {"n": 3}})", 0, "__metadata__ is not a map of strings"},
      {R"({"a": {"shape": [1], "data_offsets": [0, 4]}})", 4, "tensor 'a': has no dtype"},
      {R"({"a": {"dtype": 32, "shape": [1], "data_offsets": [0, 4]}})", 4, "has no dtype"},
      {R"({"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}})", 8,
       "tensor 'a': dtype is F64; supported: F32, BF16, F16, I32, U8"},
      {R"({"a": {"dtype": "F32", "data_offsets": [0, 4]}})", 4, "shape is not a list"},
      {R"({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}})", 4,
       "shape is not a list"},
      {R"({"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}})", 4,
       "shape is not a list"},
      {R"({"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}})", 4, "has 0 axes"},
      {R"({"a": {"dtype": "F32", "shape": [1,1,1,1,1], "data_offsets": [0, 4]}})", 4, "has 5 axes"},
      {R"({"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})", 0, "empty axis"},
      {R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}})", 4,
       "shape needs more than the file's 4 bytes"},
      {R"({"a": {"dtype": "F32", "shape": [1]}})", 4, "data_offsets is not a list of two"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}})", 4, "list of two"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}})", 4, "list of two"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}})", 4,
       "data_offsets [0, 8] outside the file's 4 bytes"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}})", 4, "outside the file's"},
      {R"({"a": {"dtype": "F32", "shape": [1],
          "data_offsets": [18446744073709551612, 18446744073709551615]}})",
       4, "outside the file's"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2]}})", 4,
       "span 2 bytes, its shape needs 4"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})", 8,
       "the tensors end at 4 of 8 bytes"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})", 8,
       "tensor 'a': begins at 4 and leaves a gap after 0"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
           "b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}})",
       6, "tensor 'b': begins at 2 and overlaps the tensor before it, which ends at 4"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
           "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})",
       4, "tensor 'b': begins at 0 and overlaps"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
           "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})",
       4, "tensor 'a': occurs twice"},
      {"{\"\xff\": 1}", 0, "not a JSON object"},
  };
  for (const Refusal& refusal : refusals) {
    const auto table = Parse(SafetensorsBytes(refusal.header, refusal.data_bytes));
    ASSERT_FALSE(table.ok()) << refusal.header;
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(table.status().message()), HasSubstr(refusal.words)) << refusal.header;
    EXPECT_THAT(std::string(table.status().message()), HasSubstr("x.safetensors: "));
  }
}

TEST(ParseSafetensorsTest, RefusesBadLengths) {
  std::vector<uint8_t> file = SafetensorsBytes(kTwoTensors, 28);
  for (size_t num_bytes = 0; num_bytes < file.size(); ++num_bytes) {
    const std::vector<uint8_t> truncated(file.begin(), file.begin() + num_bytes);
    EXPECT_FALSE(Parse(truncated).ok()) << num_bytes;
  }
  for (const int byte : {3, 4, 7}) {  // a header of gigabytes and more
    std::vector<uint8_t> changed = file;
    changed[byte] = 0xff;
    EXPECT_THAT(std::string(Parse(changed).status().message()),
                HasSubstr("the header is said to have"));
  }
}

TEST(ParseShardIndexTest, ReadsTheMap) {
  const auto shards = ParseShardIndex(
      R"({"metadata": {}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})", "i.json");
  ASSERT_TRUE(shards.ok()) << shards.status();
  EXPECT_THAT(*shards,
              ElementsAre(std::pair("a", "1.safetensors"), std::pair("b", "2.safetensors")));
}

TEST(ParseShardIndexTest, RefusesWhatIsNoMapOfPlainNames) {
  const std::pair<const char*, const char*> refusals[] = {
      {"", "not a JSON object"},
      {"{}", "weight_map is not a map"},
      {R"({"weight_map": {}})", "weight_map is not a map"},
      {R"({"weight_map": []})", "weight_map is not a map"},
      {R"({"weight_map": {"a": 1}})", "tensor 'a': its file is not a string"},
      {R"({"weight_map": {"a": ""}})", "not a plain file name"},
      {R"({"weight_map": {"a": "/etc/passwd"}})", "'/etc/passwd' is not a plain file name"},
      {R"({"weight_map": {"a": "../x"}})", "not a plain file name"},
      {R"({"weight_map": {"a": "x\u0000y"}})", "not a plain file name"},
  };
  for (const auto& [text, words] : refusals) {
    const auto shards = ParseShardIndex(text, "i.json");
    ASSERT_FALSE(shards.ok()) << text;
    EXPECT_THAT(std::string(shards.status().message()), HasSubstr(words)) << text;
  }
}

}  // namespace
}  // namespace nsa
