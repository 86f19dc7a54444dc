#include "engine/cache/page_pool.h"

#include <set>

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

TEST(PagePoolDeathTest, MisuseIsAProgrammerError) {
  PagePool pool(2);
  const PageId page = *pool.Acquire();
  pool.Release(page);
  EXPECT_DEATH(pool.Release(page), "is free");
  EXPECT_DEATH(pool.Share(page), "is free");
  EXPECT_DEATH(pool.Release(2), "page 2 of 2");
  EXPECT_DEATH(pool.Share(-1), "page -1 of 2");
}

}  // namespace
}  // namespace nsa
