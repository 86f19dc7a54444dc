#include "engine/cache/page_pool.h"

#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace nsa {
namespace {

TEST(PagePoolTest, HandsOutEveryPageOnceAndThenNothing) {
  PagePool pool(3);
  EXPECT_EQ(pool.num_pages(), 3);
  std::set<PageId> pages;
  for (int i = 0; i < 3; ++i) {
    const std::optional<PageId> page = pool.Acquire();
    ASSERT_TRUE(page.has_value());
    EXPECT_EQ(pool.num_references(*page), 1);
    pages.insert(*page);
  }
  EXPECT_EQ(pages, (std::set<PageId>{0, 1, 2}));
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_EQ(pool.Acquire(), std::nullopt);
}

TEST(PagePoolTest, AReleasedPageIsTheNextOneOut) {
  PagePool pool(4);
  const PageId first = *pool.Acquire();
  const PageId second = *pool.Acquire();
  pool.Release(first);
  EXPECT_EQ(pool.num_free(), 3);
  EXPECT_EQ(pool.num_references(first), 0);
  EXPECT_EQ(*pool.Acquire(), first);
  EXPECT_NE(first, second);
}

TEST(PagePoolTest, ASharedPageIsFreeAfterItsLastRelease) {
  PagePool pool(1);
  const PageId page = *pool.Acquire();
  pool.Share(page);
  EXPECT_EQ(pool.num_references(page), 2);
  pool.Release(page);
  EXPECT_EQ(pool.num_free(), 0);
  pool.Release(page);
  EXPECT_EQ(pool.num_free(), 1);
}

TEST(PagePoolTest, KeepsTheContentsOfAPageUntilNoOtherIsFree) {
  PagePool pool(3);
  std::vector<PageId> evicted;
  pool.OnEviction([&](PageId page) { evicted.push_back(page); });
  const PageId first = *pool.Acquire(), second = *pool.Acquire();
  pool.Keep(first);
  pool.Keep(second);
  pool.Release(second);
  pool.Release(first);
  EXPECT_EQ(pool.num_free(), 3);
  EXPECT_EQ(pool.num_kept(), 2);
  const PageId third = *pool.Acquire();
  EXPECT_TRUE(third != first && third != second);
  EXPECT_TRUE(evicted.empty());
  EXPECT_EQ(*pool.Acquire(), second);  // released first
  EXPECT_EQ(*pool.Acquire(), first);
  EXPECT_EQ(evicted, (std::vector<PageId>{second, first}));
  EXPECT_EQ(pool.num_kept(), 0);
  EXPECT_EQ(pool.Acquire(), std::nullopt);
  pool.Release(first);  // what it holds now is not worth keeping
  EXPECT_EQ(pool.num_kept(), 0);
  EXPECT_EQ(pool.num_free(), 1);
}

TEST(PagePoolTest, AKeptPageCanBeHeldAgain) {
  PagePool pool(4);
  std::vector<PageId> pages;
  for (int i = 0; i < 3; ++i) {
    pages.push_back(*pool.Acquire());
    pool.Keep(pages.back());
  }
  for (PageId page : pages) pool.Release(page);
  pool.Share(pages[1]);  // out of the middle
  EXPECT_EQ(pool.num_references(pages[1]), 1);
  EXPECT_EQ(pool.num_kept(), 2);
  pool.Release(pages[1]);  // now the last one
  std::vector<PageId> order;
  pool.OnEviction([&](PageId page) { order.push_back(page); });
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(pool.Acquire().has_value());
  EXPECT_EQ(order, (std::vector<PageId>{pages[0], pages[2], pages[1]}));
}

TEST(PagePoolTest, ADiscardedPageIsFreeOnceNobodyHoldsIt) {
  PagePool pool(2);
  pool.OnEviction([](PageId) { FAIL(); });
  const PageId held = *pool.Acquire(), kept = *pool.Acquire();
  pool.Keep(held);
  pool.Keep(kept);
  pool.Release(kept);
  pool.Discard(kept);
  pool.Discard(held);
  EXPECT_EQ(pool.num_kept(), 0);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.num_references(held), 1);
  pool.Release(held);
  EXPECT_EQ(pool.num_kept(), 0);
  EXPECT_TRUE(pool.Acquire().has_value() && pool.Acquire().has_value());
}

TEST(PagePoolDeathTest, MisuseIsAProgrammerError) {
  PagePool pool(2);
  const PageId page = *pool.Acquire();
  pool.Release(page);
  EXPECT_DEATH(pool.Release(page), "nobody holds");
  EXPECT_DEATH(pool.Keep(page), "nobody holds");
  EXPECT_DEATH(pool.Share(page), "is free");
  EXPECT_DEATH(pool.Release(2), "page 2 of 2");
  EXPECT_DEATH(pool.Share(-1), "page -1 of 2");
}

}  // namespace
}  // namespace nsa
