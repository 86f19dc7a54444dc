#include "server/metrics/families.h"

#include <gtest/gtest.h>

#include "prometheus/text_serializer.h"

namespace nsa {
namespace {

std::string Text(prometheus::MetricFamily family) {
  return prometheus::TextSerializer().Serialize({std::move(family)});
}

TEST(Families, GaugeAndCounter) {
  EXPECT_EQ(Text(GaugeFamily("g", "A gauge.", {{{{"a", "x"}}, 1.5}, {{{"a", "y"}}, 0}})),
            "# HELP g A gauge.\n# TYPE g gauge\ng{a=\"x\"} 1.5\ng{a=\"y\"} 0\n");
  EXPECT_EQ(Text(CounterFamily("c_total", "A counter.", {{{}, 12345678901}})),
            "# HELP c_total A counter.\n# TYPE c_total counter\nc_total 12345678901\n");
}

TEST(Families, HistogramIsCumulative) {
  Histogram histogram({1, 2.5});
  for (const double value : {0.5, 1.0, 2.0, 9.0}) histogram.Observe(value);
  EXPECT_EQ(Text(HistogramFamily("h", "A histogram.", {{"a", "x"}}, histogram)),
            "# HELP h A histogram.\n# TYPE h histogram\n"
            "h_count{a=\"x\"} 4\nh_sum{a=\"x\"} 12.5\n"
            "h_bucket{a=\"x\",le=\"1\"} 2\nh_bucket{a=\"x\",le=\"2.5\"} 3\n"
            "h_bucket{a=\"x\",le=\"+Inf\"} 4\n");
}

TEST(Families, AnEmptyHistogramExistsAtZero) {
  EXPECT_EQ(Text(HistogramFamily("h", "", {}, Histogram({1}))),
            "# TYPE h histogram\nh_count 0\nh_sum 0\nh_bucket{le=\"1\"} 0\n"
            "h_bucket{le=\"+Inf\"} 0\n");
}

}  // namespace
}  // namespace nsa
