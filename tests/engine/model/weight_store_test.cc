#include "engine/model/weight_store.h"

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/loader/safetensors_bytes.h"

namespace nsa {
namespace {

using ::testing::HasSubstr;

// f32 "f" [2, 2] = 1 2 3 4, bf16 "b" [1, 2] = 5 6, f16 "h" [2] = 1 -2
class WeightStoreTest : public testing::Test {
 protected:
  WeightStoreTest() : folder_(testing::TempDir() + "store_" + std::to_string(getpid())) {
    const std::vector<uint8_t> head = SafetensorsBytes(
        R"({"f": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "b": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [16, 20]},
            "h": {"dtype": "F16", "shape": [2], "data_offsets": [20, 24]}})",
        0);
    const float f[] = {1, 2, 3, 4};
    const BFloat16 b[] = {BFloat16(5.0F), BFloat16(6.0F)};
    const uint16_t h[] = {0x3c00, 0xc000};
    std::filesystem::create_directory(folder_);
    std::ofstream file(folder_ + "/model.safetensors", std::ios::binary);
    file.write(reinterpret_cast<const char*>(head.data()),
               static_cast<std::streamsize>(head.size()));
    file.write(reinterpret_cast<const char*>(f), sizeof(f));
    file.write(reinterpret_cast<const char*>(b), sizeof(b));
    file.write(reinterpret_cast<const char*>(h), sizeof(h));
  }
  ~WeightStoreTest() override { std::filesystem::remove_all(folder_); }

  Weights Open() const { return *Weights::Open(folder_); }

  std::string folder_;
};

TEST_F(WeightStoreTest, PacksPartsBelowOneAnother) {
  Weights weights = Open();
  WeightStore store(&weights, DType::kBF16);
  const PackedWeight packed = store.TakePacked({{"f", 2}, {"b", 1}}, 2);
  EXPECT_EQ(packed.num_outputs, 3);
  ASSERT_EQ(packed.data.dtype(), DType::kF32);  // bf16 only if all parts are
  const float expected[3][2] = {{1, 2}, {3, 4}, {5, 6}};
  for (int64_t out = 0; out < 3; ++out) {
    for (int64_t in = 0; in < 2; ++in) {
      EXPECT_EQ(packed.data.data<float>()[PackedIndex(packed, out, in)], expected[out][in]);
    }
  }
  EXPECT_EQ(store.num_bytes(), packed.data.num_bytes());
}

TEST_F(WeightStoreTest, KeepsBf16) {
  Weights weights = Open();
  WeightStore store(&weights, DType::kBF16);
  const PackedWeight packed = store.TakePacked({{"b", 1}}, 2);
  ASSERT_EQ(packed.data.dtype(), DType::kBF16);
  const BFloat16* values = packed.data.data<BFloat16>();
  EXPECT_EQ(static_cast<float>(values[PackedIndex(packed, 0, 1)]), 6.0F);
}

TEST_F(WeightStoreTest, ConvertsToF32) {
  Weights weights = Open();
  WeightStore store(&weights, DType::kBF16);
  const TensorView h = store.TakeF32("h", {2});
  ASSERT_TRUE(h.HasShape({2}));
  EXPECT_EQ(h.data<float>()[0], 1.0F);
  EXPECT_EQ(h.data<float>()[1], -2.0F);
  const TensorView b = store.TakeF32("b", {1, 2});
  EXPECT_EQ(b.data<float>()[1], 6.0F);
  EXPECT_TRUE(store.TakeF32("nothing", {2}).empty());
  EXPECT_THAT(std::string(store.Finish({}).message()), HasSubstr("'nothing' [2] is missing"));
}

TEST_F(WeightStoreTest, ConvertsToTheActivationDType) {
  Weights weights = Open();
  WeightStore store(&weights, DType::kBF16);
  const TensorView h = store.TakeActivation("h", {2});
  ASSERT_EQ(h.dtype(), DType::kBF16);
  EXPECT_EQ(static_cast<float>(h.data<BFloat16>()[1]), -2.0F);
}

}  // namespace
}  // namespace nsa
