// report.html: a run at a glance, in one file that needs nothing else to be read.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/chart.h"

namespace carousel {

/// What metrics.jsonl tells of a run.
struct RunHistory {
  struct Evaluation {
    std::int64_t step = 0;
    double loss = 0.0;
    std::optional<double> perplexity, accuracy, bits_per_byte;
  };
  Curve loss, lr, tokens_per_second;  ///< of the training steps
  double seconds = 0.0;               ///< in these steps
  double tokens = 0.0;
  std::vector<Evaluation> evaluations;

  /// Adds the lines that `metrics` holds from where it stands, which may have been its end before
  /// lines were added. A line that is no record of a step is skipped, and so is a number of more
  /// than 1e30.
  void read(std::istream& metrics);
};

using Facts = std::vector<std::pair<std::string, std::string>>;  ///< such as "device", "cpu"

/// What else the report tells; any text may stand in it.
struct RunSummary {
  std::string name;
  std::string state;  ///< "training", "finished"
  std::int64_t step = 0;
  std::int64_t steps = 0;
  std::string time;  ///< at which this is so
  Facts facts;
  std::string config;  ///< YAML
};

/// The page: state, facts, curves, and a table of the newest 100 evaluations.
std::string report_html(const RunSummary& run, const RunHistory& history);

}  // namespace carousel
