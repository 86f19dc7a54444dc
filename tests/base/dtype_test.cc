#include "base/dtype.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace nsa {
namespace {

TEST(BFloat16Test, EveryValueSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    BFloat16 value;
    value.bits = static_cast<uint16_t>(bits);
    const float wide = static_cast<float>(value);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(wide)))) << bits;
    } else {
      EXPECT_EQ(BFloat16(wide).bits, bits);
    }
  }
}

TEST(BFloat16Test, RoundsToNearestEven) {
  EXPECT_EQ(BFloat16(1.0F + 0x1p-8F).bits,
            BFloat16(1.0F).bits);  // a tie goes to the even neighbour
  EXPECT_EQ(BFloat16(1.0F + 0x1.8p-7F).bits, BFloat16(1.0F + 0x1p-6F).bits);  // likewise, upwards
  EXPECT_EQ(BFloat16(1.0F + 0x1.02p-8F).bits, BFloat16(1.0F + 0x1p-7F).bits);
  EXPECT_EQ(static_cast<float>(BFloat16(std::numeric_limits<float>::max())),
            std::numeric_limits<float>::infinity());
}

Float16 FromBits(uint32_t bits) {
  Float16 value;
  value.bits = static_cast<uint16_t>(bits);
  return value;
}

TEST(Float16Test, EveryValueSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float wide = static_cast<float>(FromBits(bits));
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(Float16(wide)))) << bits;
    } else {
      EXPECT_EQ(Float16(wide).bits, bits);
    }
  }
}

TEST(Float16Test, RoundsToNearestEven) {
  EXPECT_EQ(Float16(1.0F + 0x1p-11F).bits, Float16(1.0F).bits);
  EXPECT_EQ(Float16(1.0F + 0x1.8p-10F).bits, Float16(1.0F + 0x1p-9F).bits);
  EXPECT_EQ(Float16(0x1p-25F).bits, 0);
  EXPECT_EQ(Float16(0x1.8p-24F).bits, 2);
  EXPECT_EQ(Float16(65519.0F).bits, 0x7bff);
  EXPECT_EQ(Float16(-65520.0F).bits, 0xfc00);
}

TEST(Float16Test, ConvertsNormalsSubnormalsAndSpecials) {
  EXPECT_EQ(static_cast<float>(FromBits(0x3c00)), 1.0F);
  EXPECT_EQ(static_cast<float>(FromBits(0xc000)), -2.0F);
  EXPECT_EQ(static_cast<float>(FromBits(0x0001)), 0x1p-24F);
  EXPECT_EQ(static_cast<float>(FromBits(0x83ff)), -1023 * 0x1p-24F);
  EXPECT_EQ(static_cast<float>(FromBits(0x7bff)), 65504.0F);
  EXPECT_EQ(static_cast<float>(FromBits(0x7c00)), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(static_cast<float>(FromBits(0x7e00))));
}

}  // namespace
}  // namespace nsa
