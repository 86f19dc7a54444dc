#include "server/constraint_places.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

namespace nsa {
namespace {

constexpr auto kRefused = absl::StatusCode::kResourceExhausted;

TEST(ConstraintPlaces, AsManyAsThereAre) {
  ConstraintPlaces places({.max_places = 2, .max_places_of_caller = 1});
  std::vector<ConstraintPlaces::Place> taken;
  for (int i = 0; i < 2; ++i) taken.push_back(places.Reserve("", 1).value());
  const absl::Status refused = places.Reserve("", 3).status();
  EXPECT_EQ(refused.code(), kRefused);
  EXPECT_EQ(refused.message(), "2 constraints are waiting to be compiled, which is the limit");
  EXPECT_EQ(places.num_rejected(), 3);
  taken.pop_back();
  EXPECT_TRUE(places.Reserve("", 1).ok());  // and given back at once
  EXPECT_TRUE(places.Reserve("", 1).ok());
}

TEST(ConstraintPlaces, OneKeyCannotTakeThemAll) {
  ConstraintPlaces places({.max_places = 4, .max_places_of_caller = 2});
  const auto first = places.Reserve("a", 1).value();
  const auto second = places.Reserve("a", 1).value();
  EXPECT_EQ(*first, "a");
  const absl::Status refused = places.Reserve("a", 5).status();
  EXPECT_EQ(refused.code(), kRefused);
  EXPECT_EQ(refused.message(),
            "2 constraints of this key are waiting to be compiled, which is the limit");
  EXPECT_EQ(places.num_rejected(), 5);
  EXPECT_TRUE(places.Reserve("b", 1).ok());
}

TEST(ConstraintPlaces, APlaceIsFreeOnceItsLastPointerGoes) {
  ConstraintPlaces places({.max_places = 1});
  auto place = places.Reserve("a", 1).value();
  auto copy = place;
  place.reset();
  EXPECT_EQ(places.Reserve("a", 1).status().code(), kRefused);
  copy.reset();
  EXPECT_TRUE(places.Reserve("a", 1).ok());
}

TEST(ConstraintPlaces, PlacesMayOutliveThem) {
  std::optional<ConstraintPlaces> places(std::in_place, ConstraintPlaces::Limits());
  const auto place = places->Reserve("a", 1).value();
  places.reset();
  EXPECT_EQ(*place, "a");
}

}  // namespace
}  // namespace nsa
