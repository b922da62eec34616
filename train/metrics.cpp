#include "train/metrics.h"

#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/tensor/allocator.h"

namespace carousel {
namespace {

std::string format_eta(double seconds) {
  const auto total = static_cast<std::int64_t>(std::llround(std::max(seconds, 0.0)));
  return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

std::string format_rate(double per_second) {
  if (per_second >= 1e6) return fmt::format("{:.2f}M", per_second / 1e6);
  if (per_second >= 1e3) return fmt::format("{:.1f}k", per_second / 1e3);
  return fmt::format("{:.0f}", per_second);
}

double mfu(const StepReport& r) { return r.training_flops / r.seconds / *r.peak_flops; }

// The whole lines of a metrics file up to and including `last_step`.
std::string lines_up_to(const std::filesystem::path& path, std::int64_t last_step) {
  std::ifstream in(path);
  std::string kept;
  std::string line;
  while (std::getline(in, line)) {
    if (in.eof()) break;  // no newline behind it: half written
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    if (json["step"].get<std::int64_t>() <= last_step) kept += line + '\n';
  }
  return kept;
}

}  // namespace

std::string format_progress(const StepReport& r) {
  return fmt::format(
      "step {}/{} | loss {:.4f} | norm {:.3f} | lr {:.1e} | {:.1f} ms | {} tok/s | MFU {} | "
      "mem {:.1f} GiB | eta {}",
      r.step, r.steps, r.loss, r.gradient_norm, r.lr, r.seconds * 1e3,
      format_rate(static_cast<double>(r.tokens) / r.seconds),
      r.peak_flops ? fmt::format("{:.1f}%", 100.0 * mfu(r)) : "n/a",
      static_cast<double>(r.memory_bytes) / (1 << 30), format_eta(r.eta_seconds));
}

ProgressLine::ProgressLine(std::int64_t every) : every_(every), terminal_(isatty(2) != 0) {}

ProgressLine::~ProgressLine() { finish(); }

void ProgressLine::show(const StepReport& report) {
  const bool due = every_ > 0 && (report.step % every_ == 0 || report.step == report.steps);
  if (!terminal_) {
    if (due) log::info(format_progress(report));
    return;
  }
  const std::string line = format_progress(report);
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  unfinished_ = true;
  if (due) log_to_file(line);
}

void ProgressLine::finish() {
  if (unfinished_) std::fputc('\n', stderr);
  unfinished_ = false;
}

MetricsFile::MetricsFile(const std::filesystem::path& path, std::int64_t resumed_step)
    : path_(path) {
  const std::string kept = lines_up_to(path, resumed_step);
  file_.reset(std::fopen(path.c_str(), "w"));
  if (file_ == nullptr || std::fwrite(kept.data(), 1, kept.size(), file_.get()) != kept.size() ||
      std::fflush(file_.get()) != 0) {
    throw UsageError("cannot write '{}': {}; choose a writable output_dir", path.string(),
                     std::strerror(errno));
  }
}

void MetricsFile::write(const nlohmann::json& record) {
  const std::string line = record.dump() + '\n';
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() ||
      std::fflush(file_.get()) != 0) {
    throw UsageError("cannot write '{}': {}; make room and start again to continue", path_.string(),
                     std::strerror(errno));
  }
}

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

std::size_t memory_in_use(Device device) {
  if (device.type != DeviceType::kCpu) return memory_stats(device).reserved;
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0;
  std::size_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace carousel
