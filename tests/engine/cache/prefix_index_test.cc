#include "engine/cache/prefix_index.h"

#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nsa {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Tokens = std::vector<int32_t>;

constexpr int64_t kPageTokens = 2;

// A sequence that is cached whole, as a scheduler would do it.
class PrefixIndexTest : public testing::Test {
 protected:
  void Start(int64_t num_pages, int64_t lookback_tokens = 0, int64_t num_recent_pages = 0) {
    lookback_tokens_ = lookback_tokens;
    pages_.emplace(num_pages);
    recent_pages_.emplace(num_recent_pages);
    index_.emplace(kPageTokens, lookback_tokens, &*pages_, &*recent_pages_);
  }

  // The pages of a sequence's full pages, added and then released, the last one first.
  std::vector<PageId> Cache(const Tokens& tokens, const std::string& salt = "", uint64_t step = 1) {
    std::vector<PageId> pages, recent;
    uint64_t entry = 0;
    for (int64_t begin = 0; begin + kPageTokens <= std::ssize(tokens); begin += kPageTokens) {
      pages.push_back(*pages_->Acquire());
      if (lookback_tokens_ > 0) recent.push_back(*recent_pages_->Acquire());
      entry = index_->Insert(entry, std::span(tokens).subspan(begin, kPageTokens), salt,
                             pages.back(), recent.empty() ? -1 : recent.back(), step);
    }
    for (size_t i = pages.size(); i-- > 0;) pages_->Release(pages[i]);
    for (PageId page : recent) recent_pages_->Release(page);
    return pages;
  }
  std::vector<PageId> Find(const Tokens& tokens, const std::string& salt = "",
                           uint64_t last_step = 1) {
    return index_->Find(tokens, salt, last_step).pages;
  }

  int64_t lookback_tokens_ = 0;
  std::optional<PagePool> pages_, recent_pages_;
  std::optional<PrefixIndex> index_;
};

TEST_F(PrefixIndexTest, FindsTheFullPagesOfACommonBeginning) {
  Start(10);
  const std::vector<PageId> pages = Cache({1, 2, 3, 4, 5, 6, 7});
  EXPECT_EQ(index_->num_pages(), 3);
  EXPECT_THAT(Find({1, 2, 3, 4, 9, 9, 9}), ElementsAre(pages[0], pages[1]));
  EXPECT_THAT(Find({1, 2, 3, 4, 5, 6, 7}), ElementsAre(pages[0], pages[1], pages[2]));
  EXPECT_THAT(Find({1, 2, 4, 3, 5, 6, 7}), ElementsAre(pages[0]));
  EXPECT_THAT(Find({3, 4, 5, 6, 7}), IsEmpty());  // the same tokens, but not at the beginning
  EXPECT_THAT(Find({}), IsEmpty());
  EXPECT_EQ(index_->Find(Tokens{1, 2, 3}, "", 1).first_recent_page, 1);  // without a lookback: none
}

TEST_F(PrefixIndexTest, LeavesTheLastTokenToCompute) {
  Start(10);
  const std::vector<PageId> pages = Cache({1, 2, 3, 4});
  EXPECT_THAT(Find({1, 2, 3, 4, 5}), ElementsAre(pages[0], pages[1]));
  EXPECT_THAT(Find({1, 2, 3, 4}), ElementsAre(pages[0]));
  EXPECT_THAT(Find({1, 2, 3}), ElementsAre(pages[0]));
  EXPECT_THAT(Find({1, 2}), IsEmpty());
}

TEST_F(PrefixIndexTest, SaltsSeparate) {
  Start(10);
  const std::vector<PageId> ours = Cache({1, 2, 3, 4}, "ours");
  const std::vector<PageId> plain = Cache({1, 2, 3, 4});
  EXPECT_THAT(Find({1, 2, 3}, "ours"), ElementsAre(ours[0]));
  EXPECT_THAT(Find({1, 2, 3}), ElementsAre(plain[0]));
  EXPECT_THAT(Find({1, 2, 3}, "theirs"), IsEmpty());
}

TEST_F(PrefixIndexTest, KeepsTheFirstOfTwoThatAreTheSame) {
  Start(10);
  const std::vector<PageId> first = Cache({1, 2, 3, 4});
  Cache({1, 2, 3, 4, 5, 6});
  EXPECT_EQ(index_->num_pages(), 3);
  EXPECT_EQ(pages_->num_kept(), 3);
  const std::vector<PageId> found = Find({1, 2, 3, 4, 5, 6, 7});
  ASSERT_EQ(found.size(), 3U);  // the second one's last page is behind the first one's pages
  EXPECT_EQ(found[0], first[0]);
  EXPECT_EQ(found[1], first[1]);
}

TEST_F(PrefixIndexTest, APageTakenByThePoolIsForgotten) {
  Start(3);
  const std::vector<PageId> pages = Cache({1, 2, 3, 4, 5, 6});
  EXPECT_EQ(*pages_->Acquire(), pages[2]);  // released first
  EXPECT_THAT(Find({1, 2, 3, 4, 5, 6, 7}), ElementsAre(pages[0], pages[1]));
  EXPECT_EQ(*pages_->Acquire(), pages[1]);
  EXPECT_EQ(*pages_->Acquire(), pages[0]);
  EXPECT_EQ(index_->num_pages(), 0);
  EXPECT_THAT(Find({1, 2, 3}), IsEmpty());
}

// A prefix of p pages is usable if the recent pages of the 3 tokens before its end are there.
TEST_F(PrefixIndexTest, EndsWhereTheRecentPagesAreThere) {
  Start(10, /*lookback_tokens=*/3, /*num_recent_pages=*/6);
  const Tokens tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  const std::vector<PageId> pages = Cache(tokens);
  PrefixMatch match = index_->Find(tokens, "", 1);
  EXPECT_EQ(match.pages, pages);
  EXPECT_EQ(match.first_recent_page, 2);
  EXPECT_EQ(match.recent_pages.size(), 2U);
  for (int i = 0; i < 2; ++i) recent_pages_->Acquire();  // free ones
  recent_pages_->Acquire();                              // that of page 0
  match = index_->Find(tokens, "", 1);
  EXPECT_EQ(match.pages, pages);
  EXPECT_THAT(Find({1, 2, 3, 4, 5}), IsEmpty());  // its second page looks back at the first
  EXPECT_EQ(Find({1, 2, 3, 4, 5, 6, 7}).size(), 3U);
  recent_pages_->Acquire();
  recent_pages_->Acquire();  // those of pages 1 and 2
  EXPECT_THAT(index_->Find(tokens, "", 1).pages, IsEmpty());
  // Whoever computes them again gives the entries their recent pages back.
  for (PageId page : {0, 1, 2, 4, 5}) recent_pages_->Release(page);
  Cache(tokens);
  EXPECT_EQ(index_->Find(tokens, "", 1).pages, pages);
  EXPECT_EQ(index_->num_pages(), 4);
}

TEST_F(PrefixIndexTest, TheRecentPageOfAForgottenPageIsFree) {
  Start(2, /*lookback_tokens=*/3, /*num_recent_pages=*/2);
  Cache({1, 2, 3, 4});
  EXPECT_EQ(recent_pages_->num_kept(), 2);
  pages_->Acquire();
  EXPECT_EQ(recent_pages_->num_kept(), 1);
  EXPECT_EQ(recent_pages_->num_free(), 2);
}

// The end of a prompt inside a page: found by whoever has the same prompt, to be copied.
TEST_F(PrefixIndexTest, FindsTheEndOfTheSamePrompt) {
  Start(10, /*lookback_tokens=*/1, /*num_recent_pages=*/6);
  const Tokens prompt = {1, 2, 3, 4};  // ends with token 3, before the last one
  const PageId first = *pages_->Acquire(), last = *pages_->Acquire();
  const PageId first_recent = *recent_pages_->Acquire(), last_recent = *recent_pages_->Acquire();
  const std::span<const int32_t> tokens(prompt);
  const uint64_t entry = index_->Insert(0, tokens.first(2), "", first, first_recent, 1);
  index_->Insert(entry, tokens.subspan(2, 1), "", last, last_recent, 2);
  EXPECT_EQ(index_->Find(prompt, "", 1).partial_page, -1);  // not computed yet

  PrefixMatch match = index_->Find(prompt, "", 2);
  EXPECT_EQ(match.num_tokens, 3);
  EXPECT_THAT(match.pages, ElementsAre(first));
  EXPECT_EQ(match.last_entry, entry);
  EXPECT_EQ(match.partial_page, last);
  EXPECT_EQ(match.partial_recent_page, last_recent);
  EXPECT_EQ(match.first_recent_page, 1);
  EXPECT_THAT(match.recent_pages, IsEmpty());
  for (const Tokens& other : {Tokens{1, 2, 5, 4}, Tokens{1, 2, 3}, Tokens{1, 2, 3, 4, 5}}) {
    match = index_->Find(other, "", 2);
    EXPECT_EQ(match.num_tokens, 2);
    EXPECT_EQ(match.partial_page, -1);
  }

  // Once the page is full it is an entry more, which the pools count as one page.
  index_->Insert(entry, tokens.subspan(2, 2), "", last, last_recent, 3);
  EXPECT_EQ(index_->num_pages(), 2);
  EXPECT_EQ(index_->Find(prompt, "", 3).partial_page, last);
  EXPECT_THAT(Find({1, 2, 3, 4, 5}, "", 3), ElementsAre(first, last));
  for (PageId page : {last, first}) pages_->Release(page);
  for (PageId page : {first_recent, last_recent}) recent_pages_->Release(page);
  EXPECT_EQ(pages_->num_kept(), 2);

  // Without its recent page neither is of use; without its page neither is there.
  for (int i = 0; i < 5; ++i) recent_pages_->Acquire();  // free ones and that of the first page
  EXPECT_EQ(index_->Find(prompt, "", 3).partial_page, last);
  recent_pages_->Acquire();
  EXPECT_EQ(index_->Find(prompt, "", 3).num_tokens, 0);
  index_->Forget(last);
  EXPECT_EQ(index_->num_pages(), 1);
  EXPECT_EQ(pages_->num_kept(), 1);
}

TEST_F(PrefixIndexTest, ARecentPageOfTwoEntriesIsKeptForTheOther) {
  Start(10, /*lookback_tokens=*/1, /*num_recent_pages=*/6);
  Cache({1, 2});
  const Tokens prompt = {1, 2};
  const PageId page = *pages_->Acquire(), recent = *recent_pages_->Acquire();
  index_->Insert(0, std::span(prompt).first(1), "", page, recent, 1);
  const PageId full = index_->Find({{1, 2, 3}}, "", 1).pages.at(0);
  index_->Insert(0, prompt, "", page, recent, 1);  // the entry has a recent page of its own
  pages_->Release(page);
  recent_pages_->Release(recent);
  EXPECT_EQ(recent_pages_->num_kept(), 2);
  index_->Forget(full);
  EXPECT_EQ(recent_pages_->num_kept(), 1);
  EXPECT_EQ(index_->Find(prompt, "", 1).partial_recent_page, recent);
}

TEST_F(PrefixIndexTest, WaitsForTheStepThatComputesAPage) {
  Start(10);
  const std::vector<PageId> pages = Cache({1, 2, 3, 4}, "", /*step=*/5);
  EXPECT_THAT(Find({1, 2, 3}, "", 4), IsEmpty());
  EXPECT_THAT(Find({1, 2, 3}, "", 5), ElementsAre(pages[0]));
}

TEST_F(PrefixIndexTest, ForgetsWhatFailed) {
  Start(10);
  const std::vector<PageId> early = Cache({1, 2}, "", 4);
  Cache({1, 2, 3, 4, 5, 6}, "", 5);
  index_->ForgetSince(5);
  EXPECT_THAT(Find({1, 2, 3, 4, 5, 6, 7}, "", 9), ElementsAre(early[0]));
  EXPECT_EQ(pages_->num_kept(), 1);
  EXPECT_EQ(pages_->num_free(), 10);
  index_->Forget(early[0]);
  index_->Forget(early[0]);
  EXPECT_EQ(index_->num_pages(), 0);
  EXPECT_EQ(pages_->num_kept(), 0);
}

}  // namespace
}  // namespace nsa
