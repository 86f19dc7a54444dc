// Mutations of schemas and expressions, as many as a test run has time for.

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/engine/constraint/constraint_fuzz.h"

namespace nsa {
namespace {

const char* const kSeeds[] = {
    "0{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":-3,\"maximum\":"
    "12},\"b\":"
    "{\"type\":\"string\",\"maxLength\":4}},\"required\":[\"a\"],\"additionalProperties\":false}",
    "0{\"$defs\":{\"n\":{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#"
    "/$defs/n\"}}]}},"
    "\"$ref\":\"#/$defs/n\"}",
    "0{\"allOf\":[{\"properties\":{\"x\":{\"enum\":[1,\"a\",null]}}},{\"type\":\"object\","
    "\"required\":[\"x\"]}]}",
    "0{\"type\":[\"string\",\"number\"],\"pattern\":\"^a{1,3}[b-d]*$\",\"exclusiveMinimum\":0.5}",
    "0{\"type\":\"array\",\"prefixItems\":[{\"const\":{\"k\":[]}}],\"items\":{\"format\":\"date\"},"
    "\"maxItems\":3}",
    "1(?:foo|ba[rz])+\\d{2,3}",
    "1[^\\W_a-f]{0,9}|\\u00e9\\.x*?",
    "1^(a|(b(c|d)*)+)?$"};

std::vector<uint8_t> Mutated(std::string text, std::mt19937_64* random) {
  const uint64_t num_edits = 1 + (*random)() % 4;
  for (uint64_t i = 0; i < num_edits && text.size() > 1; ++i) {
    const size_t at = 1 + (*random)() % (text.size() - 1);
    const std::string other = kSeeds[(*random)() % std::size(kSeeds)];
    switch ((*random)() % 4) {
      case 0:
        text[at] = static_cast<char>((*random)() % 256);
        break;
      case 1:
        text.erase(at, 1 + (*random)() % 5);
        break;
      case 2:
        text.insert(at, other.substr((*random)() % other.size(), 1 + (*random)() % 12));
        break;
      default:
        text.insert(at, text.substr(at, (*random)() % 20));
        break;
    }
  }
  return {text.begin(), text.end()};
}

TEST(ConstraintFuzzTest, MutationsNeitherCrashNorMislead) {
  std::mt19937_64 random(11);
  int num_compiled = 0;
  for (int i = 0; i < 6000; ++i) {
    num_compiled += FuzzConstraint(Mutated(kSeeds[i % std::size(kSeeds)], &random)) ? 1 : 0;
  }
  EXPECT_GT(num_compiled, 300);
}

TEST(ConstraintFuzzTest, EverySeedCompiles) {
  for (const std::string seed : kSeeds) {
    EXPECT_TRUE(FuzzConstraint(std::vector<uint8_t>(seed.begin(), seed.end()))) << seed;
  }
}

}  // namespace
}  // namespace nsa
