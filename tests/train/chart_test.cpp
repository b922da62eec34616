#include "train/chart.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

namespace carousel {
namespace {

Curve curve(std::size_t size, double (*value)(double)) {
  Curve out;
  for (std::size_t i = 0; i < size; ++i) {
    const auto step = static_cast<std::int64_t>(i) + 1;
    out.push_back({step, value(static_cast<double>(step))});
  }
  return out;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++n;
  return n;
}

struct Vertex {
  double x, y;
};

/// Of the nth polyline.
std::vector<Vertex> vertices(const std::string& svg, int nth = 0) {
  const std::string attribute = " points=\"";
  std::size_t at = 0;
  for (int i = 0; i <= nth; ++i) at = svg.find(attribute, at) + attribute.size();
  std::istringstream points(svg.substr(at, svg.find('"', at) - at));
  std::vector<Vertex> out;
  char comma = 0;
  for (Vertex v{}; points >> v.x >> comma >> v.y;) out.push_back(v);
  return out;
}

TEST(Thinned, LeavesShortCurvesAlone) {
  for (const std::size_t size : {0u, 1u, 2u, 9u, 10u}) {
    const Curve whole = curve(size, [](double x) { return std::sin(x); });
    EXPECT_EQ(thinned(whole, 10), whole);
  }
}

TEST(Thinned, KeepsEndsAndSpikesInOrder) {
  for (const std::size_t size : {11u, 997u, 1001u, 54321u}) {
    for (const std::size_t most : {4u, 7u, 10u, 1000u}) {
      if (size <= most) continue;
      Curve whole = curve(size, [](double x) { return std::sin(x); });
      whole[size / 3].value = 50.0;
      whole[size / 2].value = -50.0;
      const Curve thin = thinned(whole, most);
      EXPECT_LE(thin.size(), most);
      EXPECT_GE(thin.size(), std::min(most, size) / 2);
      EXPECT_EQ(thin.front(), whole.front());
      EXPECT_EQ(thin.back(), whole.back());
      EXPECT_NE(std::ranges::find(thin, whole[size / 3]), thin.end()) << size << ' ' << most;
      EXPECT_NE(std::ranges::find(thin, whole[size / 2]), thin.end()) << size << ' ' << most;
      for (std::size_t i = 1; i < thin.size(); ++i) EXPECT_LT(thin[i - 1].step, thin[i].step);
    }
  }
}

TEST(ShortNumber, HasAUnitWhereItIsLong) {
  EXPECT_EQ(short_number(0.1 + 0.2), "0.3");
  EXPECT_EQ(short_number(-3e-5), "-3e-05");
  EXPECT_EQ(short_number(9000), "9000");
  EXPECT_EQ(short_number(20000), "20k");
  EXPECT_EQ(short_number(123456), "123.456k");
  EXPECT_EQ(short_number(123456, 3), "123k");
  EXPECT_EQ(short_number(-1.5e6), "-1.5M");
  EXPECT_EQ(short_number(2e9), "2G");
  EXPECT_EQ(short_number(1e20), "1e+20");
}

TEST(SvgChart, NothingGivesNothing) {
  EXPECT_EQ(svg_chart({}, {}), "");
  EXPECT_EQ(svg_chart({{"train", {}}, {"val", {}}}, {}), "");
}

TEST(SvgChart, PlacesLinesOnCommonAxes) {
  const std::string svg = svg_chart({{"a", {{0, 1.0}, {50, 3.0}, {100, 2.0}}}, {"b", {{50, 2.0}}}},
                                    {.width = 400, .height = 200});
  EXPECT_TRUE(svg.starts_with("<svg viewBox=\"0 0 400 200\"")) << svg;
  const auto a = vertices(svg);
  const auto b = vertices(svg, 1);
  ASSERT_EQ(a.size(), 3u);
  ASSERT_EQ(b.size(), 1u);
  EXPECT_NEAR(a[1].x, (a[0].x + a[2].x) / 2, 0.1);  // linear, rounded to a tenth
  EXPECT_NEAR(a[2].y, (a[0].y + a[1].y) / 2, 0.1);
  EXPECT_EQ(b[0].x, a[1].x);
  EXPECT_EQ(b[0].y, a[2].y);
  EXPECT_LT(a[1].y, a[0].y);  // larger is higher up
  for (const Vertex& v : a) {
    EXPECT_GT(v.x, 0);
    EXPECT_LT(v.x, 400);
    EXPECT_GT(v.y, 0);
    EXPECT_LT(v.y, 200);
  }
  for (const char* part : {">50</text>", ">100</text>", ">2</text>", ">3</text>",
                           "<title>step 50: 3</title>", "<polyline fill=\"none\" stroke=\"b\""}) {
    EXPECT_NE(svg.find(part), std::string::npos) << part << " is not in " << svg;
  }
}

TEST(SvgChart, IsLogarithmicWhereValuesSpanDecades) {
  const std::vector<Line> falls{{"a", {{1, 1.0}, {2, 0.01}, {3, 0.0001}}}};
  const std::string log = svg_chart(falls, {});
  EXPECT_NEAR(vertices(log)[1].y, (vertices(log)[0].y + vertices(log)[2].y) / 2, 0.1);
  EXPECT_NE(log.find(">0.001</text>"), std::string::npos) << log;
  // Not where zero is to be seen, or a value is none that has a logarithm.
  EXPECT_GT(vertices(svg_chart(falls, {.from_zero = true}))[1].y, 250);
  EXPECT_GT(vertices(svg_chart({{"a", {{1, 1.0}, {2, 0.01}, {3, 0.0}}}}, {}))[1].y, 200);
}

TEST(SvgChart, LongCurvesAreThinnedAndHaveNoDots) {
  const std::string few = svg_chart({{"a", curve(40, [](double x) { return x; })}}, {});
  EXPECT_EQ(count(few, "<circle"), 40u);
  const std::string many = svg_chart({{"a", curve(20011, [](double x) { return x; })}}, {});
  EXPECT_EQ(count(many, "<circle"), 0u);
  EXPECT_LE(vertices(many).size(), 1000u);
  EXPECT_GE(vertices(many).size(), 500u);
  EXPECT_LT(many.size(), 30000u);
}

TEST(SvgChart, OddValuesStayOnThePicture) {
  const std::vector<Curve> curves{
      {{7, 0.0}},
      {{0, -2.5}},
      {{1, 5.0}, {2, 5.0}},
      {{1, 1.0}, {2, 1.0 + 2.3e-16}},
      {{1, -1e30}, {2, 1e30}},
      {{1, 1e-300}, {2, 1e30}},
      {{INT64_MIN, 1.0}, {INT64_MAX, 2.0}},
      {{INT64_MAX - 1, 1.0}, {INT64_MAX, 2.0}},
      {{5, 1.0}, {5, 2.0}, {3, 1.5}},
  };
  for (const Curve& odd : curves) {
    for (const bool from_zero : {false, true}) {
      const std::string svg =
          svg_chart({{"a", odd}}, {.width = 300, .height = 150, .from_zero = from_zero});
      EXPECT_LT(svg.size(), 6000u);
      EXPECT_EQ(svg.find("nan"), std::string::npos) << svg;
      EXPECT_EQ(svg.find("inf"), std::string::npos) << svg;
      EXPECT_EQ(svg.find(">-0<"), std::string::npos) << svg;
      ASSERT_EQ(vertices(svg).size(), odd.size()) << svg;
      for (const Vertex& v : vertices(svg)) {
        EXPECT_GT(v.x, 0) << svg;
        EXPECT_LT(v.x, 300) << svg;
        EXPECT_GT(v.y, 0) << svg;
        EXPECT_LT(v.y, 150) << svg;
      }
    }
  }
}

}  // namespace
}  // namespace carousel
