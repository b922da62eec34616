#include "train/checkpoint/inspect.h"

#include <fmt/chrono.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <set>
#include <utility>

#include "train/checkpoint/checkpoint.h"
#include "train/interchange/json_reader.h"
#include "train/units.h"

namespace carousel {
namespace fs = std::filesystem;
namespace {

// Which directory has the name at present: another one after it was replaced, none once deleted.
std::optional<std::pair<dev_t, ino_t>> identity(const fs::path& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) return std::pair(status.st_dev, status.st_ino);
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  return std::pair<dev_t, ino_t>();
}

std::uint64_t bytes_in(const fs::path& directory) {
  std::uint64_t sum = 0;
  std::error_code error;
  fs::directory_iterator entry(directory, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::error_code no_size;
    const std::uint64_t bytes = entry->file_size(no_size);
    if (!no_size) sum += bytes;
  }
  return sum;
}

std::time_t time_of(const fs::path& file) {
  struct stat status {};
  return ::stat(file.c_str(), &status) == 0 ? status.st_mtime : 0;
}

void fill_in(CheckpointReport& report, const Checkpoint& checkpoint) {
  JsonReader trainer(checkpoint.trainer());  // what it does not understand stays unknown
  trainer.integer("world_size", report.world_size);
  trainer.integer("samples", report.samples, INT64_MAX);
  report.step = checkpoint.step();
  report.has_optimizer = checkpoint.has_optimizer();
  std::set<std::string_view> dtypes;
  const SafetensorsFile model = checkpoint.model();
  for (const std::string& name : model.names()) {
    const TensorInfo& info = model.info(name);
    report.parameters += info.shape.numel();
    dtypes.insert(name_of(info.dtype));
  }
  report.dtype = fmt::format("{}", fmt::join(dtypes, "/"));
}

CheckpointReport read(const fs::path& path, const InspectOptions& options) {
  CheckpointReport report{.path = path,
                          .step = checkpoint_step(path.filename().string()),
                          .bytes = bytes_in(path),
                          .saved = time_of(path / Manifest::kFileName),
                          .contents_read = options.read_contents};
  if (options.before_reading) options.before_reading(path, report.bytes);
  try {
    fill_in(report, Checkpoint::open(path, options.read_contents));
  } catch (const CheckpointError& e) {
    report.problem = e.what();
  }
  return report;
}

void replace_all(std::string& text, const std::string& what, std::string_view by) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size())) {
    text.replace(at, what.size(), by);
  }
}

// The problem on one line that need not say where; control characters come from broken files.
std::string problem_text(const CheckpointReport& report) {
  std::string problem = report.problem;
  replace_all(problem, fmt::format("checkpoint '{}' is ", report.path.string()), "");
  replace_all(problem, fmt::format("'{}", (report.path / "").string()), "'");
  std::string line;
  for (const char c : problem) {
    if (c == '\n') {
      line += line.ends_with(':') ? " " : "; ";
    } else if (c != ' ' || !line.ends_with(' ')) {
      line += static_cast<unsigned char>(c) < ' ' || c == 0x7f ? '?' : c;
    }
  }
  return line;
}

std::string state_text(const CheckpointReport& report) {
  std::string text = report.contents_read ? "good" : "sizes match";
  if (!report.problem.empty()) {
    text = problem_text(report);
  } else if (!report.has_optimizer) {
    text += report.step == 0 ? ", an imported model to begin with"
                             : ", no optimizer state to resume from";
  } else if (report.resumed) {
    text += report.contents_read ? ", resume takes it" : ", resume takes it if hashes match too";
  }
  if (!report.left_over) return text;
  return fmt::format("{}; left as '{}' by an interrupted save", text,
                     report.path.filename().string());
}

}  // namespace

std::optional<CheckpointReport> inspect_checkpoint(const fs::path& path,
                                                   const InspectOptions& options) {
  while (const auto before = identity(path)) {
    CheckpointReport report = read(path, options);
    if (report.problem.empty() || identity(path) == before) return report;
  }
  return std::nullopt;
}

std::vector<CheckpointReport> inspect_checkpoints(const fs::path& directory,
                                                  const InspectOptions& options) {
  std::map<fs::path, CheckpointReport> known;
  std::vector<CheckpointReport> reports;
  for (bool vanished = true; vanished;) {
    vanished = false;
    reports.clear();
    for (const FoundCheckpoint& found : list_checkpoints_as_cleaned(directory)) {
      if (!known.contains(found.path)) {
        auto report = inspect_checkpoint(found.path, options);
        vanished |= !report;
        if (!report) continue;
        if (!report->step) report->step = found.step;
        report->left_over = found.path.filename() != checkpoint_name(found.step);
        known.emplace(found.path, std::move(*report));
      }
      reports.push_back(known.at(found.path));
    }
  }
  const auto good = std::ranges::find_if(reports, &std::string::empty, &CheckpointReport::problem);
  if (good != reports.end()) good->resumed = good->has_optimizer;
  return reports;
}

std::string to_string(const std::vector<CheckpointReport>& reports) {
  using Row = std::array<std::string, 7>;
  std::vector<Row> rows{{"step", "size", "world size", "parameters", "samples", "saved", "state"}};
  const auto number = [](std::int64_t n) { return n > 0 ? std::to_string(n) : "-"; };
  for (const CheckpointReport& r : reports) {
    rows.push_back(
        {r.step ? std::to_string(*r.step) : "-", bytes_text(r.bytes), number(r.world_size),
         r.parameters > 0 ? with_unit(static_cast<double>(r.parameters), 1000.0, "") + " " + r.dtype
                          : "-",
         number(r.samples),
         r.saved > 0 ? fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::localtime(r.saved)) : "-",
         state_text(r)});
  }
  std::array<std::size_t, std::tuple_size_v<Row>> widths{};
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    for (std::size_t i = 0; i + 1 < row.size(); ++i) {
      text += fmt::format("{:>{}}  ", row[i], widths[i]);
    }
    text += row.back() + '\n';
  }
  return text;
}

}  // namespace carousel
