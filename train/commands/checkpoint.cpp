#include <algorithm>

#include "core/base/log.h"
#include "train/checkpoint/inspect.h"
#include "train/commands/commands.h"
#include "train/run_directory.h"
#include "train/units.h"

namespace carousel {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kTakesAWhile = std::uint64_t{1} << 30;

bool is_run_directory(const fs::path& path) {
  std::error_code error;
  return fs::exists(path / "checkpoints", error) || fs::exists(path / "config.yaml", error);
}

// Throws UsageError for what is neither a run directory nor a checkpoint.
void check_place(const fs::path& path) {
  std::error_code error;
  const bool directory = fs::is_directory(path, error);
  if (directory && (is_checkpoint(path) || is_run_directory(path))) return;
  throw UsageError(
      "'{}' {}; give a run directory (runs/NAME) or one of its checkpoints/step-… directories",
      path.string(),
      error        ? fmt::format("cannot be used: {}", error.message())
      : !directory ? "is not a directory"
                   : "holds no run and no checkpoint");
}

void run_checkpoint(fs::path path, bool sizes_only) {
  if (!path.has_filename()) path = path.parent_path();  // "step-00001000/"
  check_place(path);
  const bool single = is_checkpoint(path);
  const InspectOptions options{
      .read_contents = !sizes_only,
      .before_reading = [&](const fs::path& checkpoint, std::uint64_t bytes) {
        if (sizes_only || bytes < kTakesAWhile) return;
        log::info("reading the {} of '{}'; --no-verify compares sizes alone", bytes_text(bytes),
                  checkpoint.string());
      }};
  std::vector<CheckpointReport> reports;
  if (!single) {
    reports = inspect_checkpoints(path / "checkpoints", options);
  } else if (auto report = inspect_checkpoint(path, options)) {
    reports.push_back(std::move(*report));
  }
  if (reports.empty()) {
    throw CheckpointError(
        "'{}' holds no checkpoint; training saves one every checkpoint.every steps and at its end",
        path.string());
  }
  fmt::print("{}", to_string(reports));
  if (std::ranges::none_of(reports, &std::string::empty, &CheckpointReport::problem)) {
    throw CheckpointError(
        "'{}' {} good checkpoint; restore one from a copy, or begin anew elsewhere", path.string(),
        single ? "is no" : "holds no");
  }
}

}  // namespace

void add_checkpoint(CLI::App& app) {
  struct Options {
    std::string run;
    bool sizes_only = false;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "checkpoint", "List the checkpoints of a run and verify them, without touching the run");
  command->add_option("run", options->run, "run directory, or one of its checkpoints")->required();
  command->add_flag("--no-verify", options->sizes_only, "compare sizes alone, not hashes");
  command->footer(
      "Changes nothing, so a run may go on meanwhile.\n"
      "Exit code 0 if there is a good checkpoint, or the one that is named is good; 4 if not.\n"
      "Example: carousel checkpoint runs/quickstart");
  command->callback([options] { run_checkpoint(options->run, options->sizes_only); });
}

}  // namespace carousel
