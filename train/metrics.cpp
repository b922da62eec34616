#include "train/metrics.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/tensor/allocator.h"

namespace carousel {
namespace {

std::string format_rate(double per_second) {
  if (per_second >= 1e6) return fmt::format("{:.2f}M", per_second / 1e6);
  if (per_second >= 1e3) return fmt::format("{:.1f}k", per_second / 1e3);
  return fmt::format("{:.0f}", per_second);
}

std::string format_duration(double seconds) {
  return seconds < 10.0 ? fmt::format("{:.1f} ms", seconds * 1e3)
                        : fmt::format("{:.1f} s", seconds);
}

double mfu(const StepReport& r) { return r.training_flops / r.seconds / *r.peak_flops; }

struct Kept {
  bool all = true;
  bool evaluated = false;  // there is an evaluation of the last step
};

// Copies the whole lines of `in` with a step of at most `last_step`.
Kept copy_lines_up_to(std::istream& in, std::int64_t last_step, std::ostream& out) {
  Kept kept;
  for (std::string line; std::getline(in, line);) {
    const bool whole = !in.eof();  // a newline stands behind it
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (whole && json.is_object() && json.contains("step") && json["step"].is_number_integer() &&
        json["step"].get<std::int64_t>() <= last_step) {
      out << line << '\n';
      if (json["step"] == last_step && json.contains("val_loss")) kept.evaluated = true;
    } else {
      kept.all = false;
    }
  }
  return kept;
}

// Leaves of an existing file what a run that goes on behind `resumed_step` has not to do again.
// Whether that has an evaluation of this step.
bool keep_lines_up_to(const std::filesystem::path& path, std::int64_t resumed_step) {
  if (!std::filesystem::is_regular_file(path)) return false;
  const char* remedy = "choose a writable output_dir";
  std::ifstream in(path);
  const std::filesystem::path kept = path.string() + ".kept";
  std::ofstream out(kept);
  const Kept what = copy_lines_up_to(in, resumed_step, out);
  out.close();
  if (in.bad() || !in.is_open() || !out) throw UsageError("{}", write_error(kept, remedy));
  // Renamed whole, so that no moment exists at which lines to keep are lost.
  if (what.all ? std::remove(kept.c_str()) : std::rename(kept.c_str(), path.c_str())) {
    throw UsageError("{}", write_error(path, remedy));
  }
  return what.evaluated;
}

}  // namespace

std::string format_clock(double seconds) {
  const auto total = static_cast<std::int64_t>(std::llround(std::max(seconds, 0.0)));
  return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

std::string format_progress(const StepReport& r) {
  return fmt::format(
      "step {}/{} | loss {:.4f} | norm {:.3f} | lr {:.1e} | {} | {} tok/s | MFU {} | "
      "mem {:.1f} GiB | eta {}",
      r.step, r.steps, r.loss, r.gradient_norm, r.lr, format_duration(r.seconds),
      format_rate(static_cast<double>(r.tokens) / r.seconds),
      r.peak_flops ? fmt::format("{:.1f}%", 100.0 * mfu(r)) : "n/a",
      static_cast<double>(r.memory_bytes) / (1 << 30), format_clock(r.eta_seconds));
}

ProgressLine::~ProgressLine() { finish_status(); }

void ProgressLine::show(const StepReport& report) {
  const bool due = report.step % every_ == 0 || report.step == report.steps;
  const std::string line = format_progress(report);
  if (!log_is_terminal()) {
    if (due) log::info("{}", line);
    return;
  }
  show_status(line);
  if (due) log_to_file(line);
}

MetricsFile::MetricsFile(const std::filesystem::path& path, std::int64_t resumed_step)
    : evaluated_(keep_lines_up_to(path, resumed_step)), file_(path) {}

void MetricsFile::write(const nlohmann::json& record) { file_.write(record.dump() + '\n'); }

nlohmann::json step_record(const StepReport& r) {
  nlohmann::json json = {{"step", r.step},
                         {"loss", r.loss},
                         {"grad_norm", r.gradient_norm},
                         {"lr", r.lr},
                         {"seconds", r.seconds},
                         {"tokens_per_second", static_cast<double>(r.tokens) / r.seconds},
                         {"memory_bytes", r.memory_bytes}};
  if (r.peak_flops) json["mfu"] = mfu(r);
  return json;
}

nlohmann::json checkpoint_record(std::int64_t step, double stall_seconds) {
  return {{"step", step}, {"checkpoint_stall_ms", 1e3 * stall_seconds}};
}

std::size_t memory_in_use(Device device) {
  if (device.type != DeviceType::kCpu) return memory_stats(device).reserved;
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0;
  std::size_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace carousel
