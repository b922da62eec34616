#include "train/launcher/host_list.h"

#include <charconv>
#include <cstddef>

#include "core/base/error.h"

namespace carousel {
namespace {

constexpr std::size_t kMaxHosts = 65536;
constexpr std::size_t kMaxDigits = 9;  // what an int holds
constexpr int kMaxBrackets = 8;        // in one name

class Expansion {
 public:
  explicit Expansion(std::string_view text) : text_(text) {}

  std::vector<std::string> run() {
    // Commas inside brackets do not separate names.
    std::size_t begin = 0;
    bool inside = false;
    for (std::size_t i = 0; i <= text_.size(); ++i) {
      if (i == text_.size() || (text_[i] == ',' && !inside)) {
        if (i == begin) fail("an empty name");
        expand(text_.substr(begin, i - begin), "", 0);
        begin = i + 1;
      } else if (text_[i] == '[' || text_[i] == ']') {
        if (inside == (text_[i] == '[')) fail("brackets that do not match");
        inside = !inside;
      }
    }
    return std::move(hosts_);
  }

 private:
  [[noreturn]] void fail(std::string_view problem) const {
    throw UsageError("'{}' is not a Slurm host list (like gpu[01-03,07],login): {}", text_,
                     problem);
  }

  // `rest` of a name behind `done`, which is expanded.
  void expand(std::string_view rest, const std::string& done, int depth) {
    const std::size_t open = rest.find('[');
    if (open == std::string_view::npos) {
      if (hosts_.size() == kMaxHosts) fail(fmt::format("more than {} hosts", kMaxHosts));
      hosts_.push_back(done + std::string(rest));
      return;
    }
    const std::size_t close = rest.find(']', open);
    if (close == std::string_view::npos) fail("brackets that do not match");
    if (depth == kMaxBrackets) fail("too many brackets");
    std::string_view ranges = rest.substr(open + 1, close - open - 1);
    while (true) {
      const std::size_t comma = ranges.find(',');
      expand_range(ranges.substr(0, comma), rest.substr(close + 1),
                   done + std::string(rest.substr(0, open)), depth + 1);
      if (comma == std::string_view::npos) break;
      ranges.remove_prefix(comma + 1);
    }
  }

  void expand_range(std::string_view range, std::string_view rest, const std::string& done,
                    int depth) {
    const std::size_t dash = range.find('-');
    const std::string_view first = range.substr(0, dash);
    const int low = number(first);
    const int high = dash == std::string_view::npos ? low : number(range.substr(dash + 1));
    if (high < low) fail(fmt::format("the range {} runs backwards", range));
    for (int n = low; n <= high; ++n) {
      expand(rest, fmt::format("{}{:0{}}", done, n, first.size()), depth);
    }
  }

  int number(std::string_view digits) const {
    int value = 0;
    const char* end = digits.data() + digits.size();
    if (digits.empty() || digits.size() > kMaxDigits || digits.front() == '-' ||
        std::from_chars(digits.data(), end, value).ptr != end) {
      fail(fmt::format("'{}' is no number", digits));
    }
    return value;
  }

  std::string_view text_;
  std::vector<std::string> hosts_;
};

}  // namespace

std::vector<std::string> expand_host_list(std::string_view text) { return Expansion(text).run(); }

}  // namespace carousel
