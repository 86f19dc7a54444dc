#include "engine/cache/kv_cache.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"

namespace nsa {
namespace {

CacheSpec Spec() {
  CacheSpec spec{.page_tokens = 8, .num_layers = 3, .dtype = DType::kBF16};
  spec.page_segments = {{.name = "sel", .num_rows = 8, .num_kv_heads = 2, .d_k = 4, .d_v = 6},
                        {.name = "rows", .num_rows = 2, .num_kv_heads = 2, .d_k = 4, .d_v = 6}};
  spec.recent_segments = {{.name = "win", .num_rows = 5, .num_kv_heads = 2, .d_k = 4, .d_v = 6}};
  return spec;
}

TEST(CacheSpecTest, CountsBytesOfAllLayers) {
  EXPECT_EQ(Spec().BytesPerPage(), (8 + 2) * 2 * (4 + 6) * 2 * 3);
  EXPECT_EQ(Spec().BytesPerRecentPage(), 5 * 2 * (4 + 6) * 2 * 3);
}

TEST(CacheSpecTest, CountsThePagesThatTokensTouch) {
  const auto touched = [](int64_t begin, int64_t num_tokens) {
    return (begin + num_tokens - 1) / 8 - begin / 8 + 1;
  };
  for (int64_t num_tokens = 1; num_tokens <= 40; ++num_tokens) {
    int64_t most = 0;
    for (int64_t begin = 0; begin < 8; ++begin) most = std::max(most, touched(begin, num_tokens));
    EXPECT_EQ(MaxPagesTouched(num_tokens, 8), most) << num_tokens;
  }
}

TEST(KvCacheTest, TensorsHaveTheirSegmentsShape) {
  const KvCache cache(Spec(), /*num_pages=*/7, /*num_recent_pages=*/3);
  EXPECT_TRUE(cache.PageTensors(0, 0).k.HasShape({7, 2, 8, 4}));
  EXPECT_TRUE(cache.PageTensors(2, 1).v.HasShape({7, 2, 2, 6}));
  EXPECT_TRUE(cache.RecentTensors(1, 0).k.HasShape({3, 2, 5, 4}));
  EXPECT_EQ(cache.RecentTensors(1, 0).v.dtype(), DType::kBF16);
}

TEST(KvCacheTest, CopiesAllOfAPageAndNothingElse) {
  KvCache cache(Spec(), /*num_pages=*/3, /*num_recent_pages=*/3);
  // Bytes by page, every tensor one after another: first each byte's page, then what is copied.
  const auto for_each_byte = [&](bool is_recent, const auto& visit) {
    for (int64_t layer = 0; layer < 3; ++layer) {
      for (int64_t segment = 0; segment < (is_recent ? 1 : 2); ++segment) {
        const auto tensors =
            is_recent ? cache.RecentTensors(layer, segment) : cache.PageTensors(layer, segment);
        for (const TensorView& view : {tensors.k, tensors.v}) {
          auto* bytes = static_cast<uint8_t*>(view.raw());
          for (int64_t i = 0; i < view.num_bytes(); ++i) {
            visit(&bytes[i], i / (view.num_bytes() / 3));
          }
        }
      }
    }
  };
  for (const bool is_recent : {false, true}) {
    for_each_byte(is_recent, [](uint8_t* byte, int64_t page) { *byte = 10 + page; });
  }
  cache.CopyPage(2, 0);
  cache.CopyRecentPage(0, 1);
  for_each_byte(false, [](const uint8_t* byte, int64_t page) {
    ASSERT_EQ(*byte, page == 0 ? 12 : 10 + page);
  });
  for_each_byte(true, [](const uint8_t* byte, int64_t page) {
    ASSERT_EQ(*byte, page == 1 ? 10 : 10 + page);
  });
}

TEST(KvCacheTest, TensorsDoNotOverlap) {
  const KvCache cache(Spec(), /*num_pages=*/7, /*num_recent_pages=*/3);
  std::vector<std::pair<const char*, const char*>> ranges;
  const auto add = [&](const TensorView& view) {
    const char* begin = static_cast<const char*>(view.raw());
    ranges.emplace_back(begin, begin + view.num_bytes());
  };
  for (int64_t layer = 0; layer < 3; ++layer) {
    for (const int64_t segment : {0, 1}) {
      add(cache.PageTensors(layer, segment).k);
      add(cache.PageTensors(layer, segment).v);
    }
    add(cache.RecentTensors(layer, 0).k);
    add(cache.RecentTensors(layer, 0).v);
  }
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) EXPECT_LE(ranges[i - 1].second, ranges[i].first);
}

TEST(KvCacheDeathTest, AnUnknownSegmentIsAProgrammerError) {
  const KvCache cache(Spec(), 1, 1);
  EXPECT_DEATH(cache.PageTensors(3, 0), "check failed");
  EXPECT_DEATH(cache.RecentTensors(0, 1), "check failed");
}

}  // namespace
}  // namespace nsa
