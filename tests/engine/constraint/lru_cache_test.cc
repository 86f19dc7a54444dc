#include "engine/constraint/lru_cache.h"

#include <gtest/gtest.h>

#include <string>

namespace nsa {
namespace {

LruCache<std::string> MakeCache(int64_t max_bytes) {
  return {max_bytes, [](const std::string& value) { return static_cast<int64_t>(value.size()); }};
}

TEST(LruCache, KeepsWhatFitsAndDropsTheLeastRecentlyUsed) {
  LruCache<std::string> cache = MakeCache(30);  // three of one byte of key and nine of value
  for (const char* key : {"a", "b", "c"}) cache.Put(key, std::string(9, *key));
  EXPECT_EQ(cache.num_entries(), 3);
  ASSERT_NE(cache.Find("a"), nullptr);
  EXPECT_EQ(*cache.Find("a"), "aaaaaaaaa");
  cache.Put("d", std::string(9, 'd'));
  EXPECT_EQ(cache.Find("b"), nullptr);
  for (const char* key : {"a", "c", "d"}) EXPECT_NE(cache.Find(key), nullptr) << key;
  cache.Put("e", std::string(19, 'e'));  // the room of two
  EXPECT_EQ(cache.num_entries(), 2);
  EXPECT_NE(cache.Find("d"), nullptr);
}

TEST(LruCache, TheNewestStaysHoweverLarge) {
  LruCache<std::string> cache = MakeCache(30);
  cache.Put("a", "small");
  cache.Put("b", std::string(100, 'b'));
  EXPECT_EQ(cache.num_entries(), 1);
  EXPECT_NE(cache.Find("b"), nullptr);
  cache.Put("c", "small");
  EXPECT_EQ(cache.num_entries(), 1);
  EXPECT_NE(cache.Find("c"), nullptr);
}

TEST(LruCache, AKeyHasOneValue) {
  LruCache<std::string> cache = MakeCache(30);
  cache.Put("a", "one");
  cache.Put("a", "two");
  EXPECT_EQ(cache.num_entries(), 1);
  EXPECT_EQ(*cache.Find("a"), "two");
  cache.Erase("a");
  cache.Erase("a");
  EXPECT_EQ(cache.Find("a"), nullptr);
  EXPECT_EQ(cache.num_entries(), 0);
}

TEST(LruCache, TheOldestThatMayGoIsErased) {
  LruCache<std::string> cache = MakeCache(30);
  for (const char* key : {"a", "b", "c"}) cache.Put(key, key);
  const auto may_go = [](const std::string& value) { return value != "a"; };
  EXPECT_TRUE(cache.EraseOldest(may_go));
  EXPECT_EQ(cache.Find("b"), nullptr);
  EXPECT_TRUE(cache.EraseOldest(may_go));
  EXPECT_FALSE(cache.EraseOldest(may_go));
  EXPECT_NE(cache.Find("a"), nullptr);
}

}  // namespace
}  // namespace nsa
