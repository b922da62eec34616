#include "train/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace carousel {
namespace {

constexpr std::size_t kMostPoints = 1000;
constexpr std::size_t kMostDots = 40;
constexpr double kLogFrom = 30.0;  // the span of values from which on an axis is logarithmic

// A stretch of numbers, laid out over [0, 1].
class Axis {
 public:
  Axis(double low, double high, bool log) : low_(low), high_(high), log_(log) {
    if (log_) {
      low_ = std::log10(low);
      high_ = std::log10(high);
    }
  }

  double at(double value) const {
    return ((log_ ? std::log10(value) : value) - low_) / (high_ - low_);
  }
  // A twentieth of air on both sides.
  void widen() {
    const double air = (high_ - low_) / 20.0;
    low_ -= air;
    high_ += air;
  }
  // Round numbers, about `count` of them.
  std::vector<double> ticks(int count) const {
    std::vector<double> all;
    const double rough = (high_ - low_) / count;
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    double unit = 10.0 * power;
    for (const double nice : {5.0, 2.0, 1.0}) {
      if (nice * power >= rough) unit = nice * power;
    }
    if (log_ && rough < 1.0) return log_ticks(rough < 0.4);
    if (log_) unit = std::ceil(rough);
    for (double i = std::ceil(low_ / unit); i * unit <= high_; ++i) {
      all.push_back(log_ ? std::pow(10.0, i * unit) : i * unit + 0.0);  // never -0
    }
    return all;
  }

 private:
  // Every power of ten; `between` them twice and five times that.
  std::vector<double> log_ticks(bool between) const {
    std::vector<double> all;
    for (double decade = std::floor(low_); decade <= high_; ++decade) {
      for (const double nice : {1.0, 2.0, 5.0}) {
        const double tick = nice * std::pow(10.0, decade);
        if ((nice == 1.0 || between) && at(tick) >= 0.0 && at(tick) <= 1.0) all.push_back(tick);
      }
    }
    return all;
  }

  double low_, high_;
  bool log_;
};

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  // A single value, or what looks like one, stands in the middle.
  void open() {
    const double size = std::max(std::abs(low), std::abs(high));
    if (high - low > 1e-6 * size) return;
    low -= std::max(size / 10.0, 1e-12);
    high += std::max(size / 10.0, 1e-12);
  }
};

// Where on the picture what stands, and its parts.
class Plot {
 public:
  Plot(const Axis& x, const Axis& y, const ChartOptions& options)
      : x_(x), y_(y), options_(options) {}

  std::string grid() const {
    std::string svg;
    for (const double tick : y_.ticks(options_.height / 50)) {
      svg += fmt::format(
          "<line stroke=\"currentColor\" opacity=\"0.15\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" "
          "y2=\"{:.1f}\"/><text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n",
          kLeft, options_.width - kRight, py(tick), py(tick), kLeft - 6, py(tick) + 4,
          short_number(tick));
    }
    for (const double tick : x_.ticks(options_.width / 100)) {
      if (tick != std::floor(tick)) continue;  // there is no half step
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", px(tick),
                         options_.height - 6, short_number(tick));
    }
    return svg;
  }

  std::string line(const Line& line) const {
    const Curve curve = thinned(line.curve, kMostPoints);
    std::string points;
    std::string dots;
    for (const Point& point : curve) {
      const double x = px(static_cast<double>(point.step));
      const double y = py(point.value);
      points += fmt::format("{}{:.1f},{:.1f}", points.empty() ? "" : " ", x, y);
      if (curve.size() > kMostDots) continue;
      dots += fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\" fill=\"{}\"><title>step {}: {:.5g}</title>"
          "</circle>\n",
          x, y, line.color, point.step, point.value);
    }
    return fmt::format("<polyline fill=\"none\" stroke=\"{}\" points=\"{}\"/>\n{}", line.color,
                       points, dots);
  }

 private:
  static constexpr int kLeft = 52, kRight = 20, kTop = 8, kBottom = 24;

  double px(double step) const { return kLeft + (options_.width - kLeft - kRight) * x_.at(step); }
  double py(double value) const {
    return kTop + (options_.height - kTop - kBottom) * (1.0 - y_.at(value));
  }

  Axis x_, y_;
  ChartOptions options_;
};

}  // namespace

Curve thinned(const Curve& curve, std::size_t most) {
  if (curve.size() <= most) return curve;
  const std::size_t inner = curve.size() - 2;
  const std::size_t stretches = (most - 2) / 2;
  Curve out{curve.front()};
  for (std::size_t i = 0; i < stretches; ++i) {
    const auto begin = curve.begin() + 1 + static_cast<std::ptrdiff_t>(inner * i / stretches);
    const auto end = curve.begin() + 1 + static_cast<std::ptrdiff_t>(inner * (i + 1) / stretches);
    auto [first, second] = std::minmax_element(
        begin, end, [](const Point& a, const Point& b) { return a.value < b.value; });
    if (second < first) std::swap(first, second);
    out.push_back(*first);
    if (first != second) out.push_back(*second);
  }
  out.push_back(curve.back());
  return out;
}

std::string short_number(double value, int digits) {
  const double size = std::abs(value);
  const auto text = [&](double unit, const char* name) {
    return fmt::format("{:.{}g}{}", value / unit, digits, name);
  };
  if (size >= 1e15 || size < 1e4) return text(1.0, "");
  if (size >= 1e9) return text(1e9, "G");
  return size >= 1e6 ? text(1e6, "M") : text(1e3, "k");
}

std::string svg_chart(const std::vector<Line>& lines, const ChartOptions& options) {
  Range steps;
  Range values;
  for (const Line& line : lines) {
    for (const Point& point : line.curve) {
      steps.add(static_cast<double>(point.step));
      values.add(point.value);
    }
  }
  if (steps.low > steps.high) return "";
  if (options.from_zero) values.add(0.0);
  steps.open();
  values.open();
  const Axis x(steps.low, steps.high, false);
  Axis y(values.low, values.high, values.low > 0.0 && values.high > kLogFrom * values.low);
  if (!options.from_zero) y.widen();

  const Plot plot(x, y, options);
  std::string svg = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" fill=\"currentColor\" stroke-width=\"1.5\" "
      "font-size=\"12\">\n",
      options.width, options.height);
  svg += plot.grid();
  for (const Line& line : lines) svg += plot.line(line);
  return svg + "</svg>\n";
}

}  // namespace carousel
