#include "engine/loader/weights.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/loader/safetensors_bytes.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class WeightsTest : public testing::Test {
 protected:
  WeightsTest() : folder_(absl::StrCat(testing::TempDir(), "weights_", getpid())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directory(folder_);
  }
  ~WeightsTest() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& file, const std::string& header, size_t data_bytes) {
    const std::vector<uint8_t> bytes = SafetensorsBytes(header, data_bytes);
    std::ofstream(absl::StrCat(folder_, "/", file), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  void WriteIndex(const std::string& text) {
    std::ofstream(absl::StrCat(folder_, "/model.safetensors.index.json")) << text;
  }
  std::string OpenError() const { return std::string(Weights::Open(folder_).status().message()); }

  std::string folder_;
};

constexpr char kOne[] = R"({"a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
                            "b.inv_freq": {"dtype": "I32", "shape": [1], "data_offsets": [8, 12]}})";

TEST_F(WeightsTest, GivesTensorsByName) {
  Write("model.safetensors", kOne, 12);
  absl::StatusOr<Weights> weights = Weights::Open(folder_);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const TensorView a = weights->Take("a", {2, 1});
  ASSERT_TRUE(a.HasShape({2, 1}));
  const auto* bytes = static_cast<const uint8_t*>(a.raw());
  EXPECT_EQ(bytes[0], 0);
  EXPECT_EQ(bytes[7], 7);
  EXPECT_THAT(weights->ShapeOf("a"), ElementsAre(2, 1));
  EXPECT_THAT(weights->ShapeOf("c"), IsEmpty());
  EXPECT_EQ(weights->DTypeOf("a"), DType::kF32);
  EXPECT_EQ(weights->DTypeOf("c"), std::nullopt);
  EXPECT_TRUE(weights->Finish({"inv_freq"}).ok());
}

// A header of a length that is no multiple of 4 puts the data at an odd address.
TEST_F(WeightsTest, RealignsTensors) {
  for (int padding = 0; padding < 4; ++padding) {
    Write("model.safetensors", absl::StrCat(kOne, std::string(padding, ' ')), 12);
    absl::StatusOr<Weights> weights = Weights::Open(folder_);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const TensorView a = weights->Take("a", {2, 1});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.raw()) % sizeof(float), 0U);
    EXPECT_EQ(static_cast<const uint8_t*>(a.raw())[5], 5);
  }
}

TEST_F(WeightsTest, ReportsEverythingThatDoesNotFit) {
  Write("model.safetensors", kOne, 12);
  absl::StatusOr<Weights> weights = Weights::Open(folder_);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_TRUE(weights->Take("a", {1, 2}).empty());
  EXPECT_TRUE(weights->Take("c", {4}).empty());
  EXPECT_TRUE(weights->Take("b.inv_freq", {1}).empty());
  const std::string message(weights->Finish({}).message());
  EXPECT_THAT(message, HasSubstr("'a' is [2, 1], config.json makes it [1, 2]"));
  EXPECT_THAT(message, HasSubstr("'c' [4] is missing"));
  EXPECT_THAT(message, HasSubstr("'b.inv_freq' holds i32; supported: f32, bf16, f16"));
}

TEST_F(WeightsTest, RefusesWhatIsLeftOver) {
  Write("model.safetensors", kOne, 12);
  absl::StatusOr<Weights> weights = Weights::Open(folder_);
  ASSERT_TRUE(weights.ok()) << weights.status();
  weights->Take("a", {2, 1});
  EXPECT_THAT(std::string(weights->Finish({}).message()),
              HasSubstr("'b.inv_freq' is not part of this architecture"));
}

TEST_F(WeightsTest, ListsTheFirstProblemsAndCountsTheRest) {
  Write("model.safetensors", "{}", 0);
  absl::StatusOr<Weights> weights = Weights::Open(folder_);
  ASSERT_TRUE(weights.ok()) << weights.status();
  for (int i = 0; i < 9; ++i) weights->Take(absl::StrCat("t", i), {1});
  const std::string message(weights->Finish({}).message());
  EXPECT_THAT(message, HasSubstr("'t4'"));
  EXPECT_THAT(message, Not(HasSubstr("'t5'")));
  EXPECT_THAT(message, HasSubstr("and 4 more"));
}

TEST_F(WeightsTest, ReadsShards) {
  Write("1.safetensors", R"({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}})", 2);
  Write("2.safetensors", R"({"b": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}})", 3);
  WriteIndex(R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
  const absl::StatusOr<Weights> weights = Weights::Open(folder_);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_THAT(weights->ShapeOf("a"), ElementsAre(2));
  EXPECT_THAT(weights->ShapeOf("b"), ElementsAre(3));
}

TEST_F(WeightsTest, RefusesShardsThatContradictTheIndex) {
  Write("1.safetensors", R"({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}})", 2);
  Write("2.safetensors", R"({"b": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}})", 3);
  WriteIndex(R"({"weight_map": {"a": "1.safetensors", "b": "1.safetensors"}})");
  EXPECT_THAT(OpenError(), HasSubstr("1.safetensors: tensor 'b' is missing"));
  WriteIndex(R"({"weight_map": {"a": "1.safetensors", "c": "3.safetensors"}})");
  EXPECT_THAT(OpenError(), HasSubstr("3.safetensors: no such file"));
  Write("2.safetensors", R"({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}})", 2);
  WriteIndex(R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
  EXPECT_THAT(OpenError(), HasSubstr("2.safetensors: tensor 'a' is in another shard as well"));
  Write("1.safetensors", R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                             "d": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}})",
        2);
  WriteIndex(R"({"weight_map": {"a": "1.safetensors"}})");
  EXPECT_THAT(OpenError(), HasSubstr("tensor 'd' of a shard is not listed"));
}

TEST_F(WeightsTest, NamesWhatIsMissingOrBroken) {
  EXPECT_THAT(OpenError(), HasSubstr("model.safetensors: no such file"));
  EXPECT_THAT(OpenError(), Not(HasSubstr(folder_)));
  Write("model.safetensors", "nonsense", 0);
  EXPECT_THAT(OpenError(), HasSubstr("model.safetensors: the header is not a JSON object"));
  std::ofstream(absl::StrCat(folder_, "/model.safetensors"), std::ios::trunc).close();
  EXPECT_THAT(OpenError(), HasSubstr("has 0 bytes"));
  std::filesystem::remove(absl::StrCat(folder_, "/model.safetensors"));
  std::filesystem::create_directory(absl::StrCat(folder_, "/model.safetensors"));
  EXPECT_THAT(OpenError(), HasSubstr("model.safetensors: not a file"));
}

}  // namespace
}  // namespace nsa
