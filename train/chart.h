// Curves over steps as SVG, to stand within a page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace carousel {

struct Point {
  std::int64_t step = 0;
  double value = 0.0;
  bool operator==(const Point&) const = default;
};
using Curve = std::vector<Point>;

/// At most `most` (4 or more) points of a curve: the first, the last, and of each of equal
/// stretches between them the lowest and the highest, so that no spike is lost.
Curve thinned(const Curve& curve, std::size_t most);

/// "1.5M", "20k", "0.25", "3e-05".
std::string short_number(double value, int digits = 6);

struct Line {
  std::string color;  ///< as CSS has it
  Curve curve;
};

struct ChartOptions {
  int width = 720;
  int height = 300;
  bool from_zero = false;  ///< the axis begins there; else it fits the values
};

/// An <svg> of the lines, each of up to 1000 points. The axis of values is logarithmic if these are
/// positive and span more than a factor of 30, unless it is to begin at 0. Where a line has few
/// points each is a dot that tells its value. Empty if there is no point. Values are finite, of at
/// most 1e30.
std::string svg_chart(const std::vector<Line>& lines, const ChartOptions& options);

}  // namespace carousel
