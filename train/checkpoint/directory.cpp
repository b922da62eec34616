#include "train/checkpoint/directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "core/base/file.h"
#include "core/base/log.h"

namespace carousel {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kTemporary = ".tmp";
constexpr std::string_view kReplaced = ".old";

// The step of ".step-N<suffix>".
std::optional<std::int64_t> step_of_hidden(std::string_view name, std::string_view suffix) {
  if (!name.starts_with('.') || !name.ends_with(suffix)) return std::nullopt;
  name.remove_prefix(1);
  name.remove_suffix(std::min(name.size(), suffix.size()));
  return checkpoint_step(name);
}

fs::path hidden_path(const fs::path& directory, std::int64_t step, std::string_view suffix) {
  return directory / fmt::format(".{}{}", checkpoint_name(step), suffix);
}

bool path_exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

void rename_path(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) {
    throw CheckpointError(
        "{}", io_error(fmt::format("rename '{}' to", from.string()), to, error.value()));
  }
}

void remove_all_path(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw CheckpointError("{}", io_error("delete", path, error.value()));
}

// Calls f(name) for each entry.
template <class F>
void for_each_entry(const fs::path& directory, F&& f) {
  std::error_code error;
  fs::directory_iterator entry(directory, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    f(entry->path().filename().string());
  }
  if (error) throw CheckpointError("{}", io_error("list", directory, error.value()));
}

}  // namespace

std::string checkpoint_name(std::int64_t step) { return fmt::format("step-{:08}", step); }

std::optional<std::int64_t> checkpoint_step(std::string_view name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const std::string_view digits = name.substr(kPrefix.size());
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc() || step < 0 || checkpoint_name(step) != name) return std::nullopt;
  return step;
}

bool directory_exists(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) return false;
  if (status.type() != fs::file_type::directory) {
    throw CheckpointError("{}",
                          io_error("use the directory", path, error ? error.value() : ENOTDIR));
  }
  return true;
}

std::vector<FoundCheckpoint> list_checkpoints(const fs::path& directory) {
  std::vector<FoundCheckpoint> found;
  if (!directory_exists(directory)) return found;
  if (!path_exists(directory)) return found;
  for_each_entry(directory, [&](const std::string& name) {
    if (const auto step = checkpoint_step(name)) found.push_back({*step, directory / name});
  });
  std::ranges::sort(found, std::greater{}, &FoundCheckpoint::step);
  return found;
}

std::vector<FoundCheckpoint> list_checkpoints_as_cleaned(const fs::path& directory) {
  std::vector<FoundCheckpoint> found = list_checkpoints(directory);
  if (!directory_exists(directory)) return found;
  std::vector<FoundCheckpoint> replaced;
  for_each_entry(directory, [&](const std::string& name) {
    const auto step = step_of_hidden(name, kReplaced);
    if (step && std::ranges::find(found, *step, &FoundCheckpoint::step) == found.end()) {
      replaced.push_back({*step, directory / name});
    }
  });
  found.insert(found.end(), replaced.begin(), replaced.end());
  std::ranges::sort(found, std::greater{}, &FoundCheckpoint::step);
  return found;
}

DirectoryLock::DirectoryLock(const fs::path& directory, Mode mode) {
  descriptor_ = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ < 0) throw CheckpointError("{}", io_error("open", directory, errno));
  const int operation = mode == Mode::kWait ? LOCK_EX : LOCK_EX | LOCK_NB;
  int result = 0;
  do {
    result = ::flock(descriptor_, operation);
  } while (result != 0 && errno == EINTR);
  held_ = result == 0 || errno != EWOULDBLOCK;
}

DirectoryLock::~DirectoryLock() { ::close(descriptor_); }

fs::path temporary_path(const fs::path& directory, std::int64_t step) {
  return hidden_path(directory, step, kTemporary);
}

void publish(const fs::path& directory, std::int64_t step) {
  const fs::path final = directory / checkpoint_name(step);
  const fs::path replaced = hidden_path(directory, step, kReplaced);
  const bool replaces = path_exists(final);
  if (replaces) rename_path(final, replaced);
  try {
    rename_path(temporary_path(directory, step), final);
  } catch (...) {
    std::error_code ignored;
    if (replaces) fs::rename(replaced, final, ignored);
    throw;
  }
  sync_directory(directory);
  if (replaces) {
    rename_path(replaced, temporary_path(directory, step));
    remove_all_path(temporary_path(directory, step));
  }
}

void discard(const fs::path& directory, std::int64_t step) {
  rename_path(directory / checkpoint_name(step), temporary_path(directory, step));
  remove_all_path(temporary_path(directory, step));
}

void clean_up(const fs::path& directory) {
  std::vector<std::int64_t> temporary;
  std::vector<std::int64_t> replaced;
  for_each_entry(directory, [&](const std::string& name) {
    if (const auto t = step_of_hidden(name, kTemporary)) temporary.push_back(*t);
    if (const auto r = step_of_hidden(name, kReplaced)) replaced.push_back(*r);
  });
  for (const std::int64_t step : temporary) remove_all_path(temporary_path(directory, step));
  for (const std::int64_t step : replaced) {
    const fs::path final = directory / checkpoint_name(step);
    const fs::path old = hidden_path(directory, step, kReplaced);
    if (path_exists(final)) {
      rename_path(old, temporary_path(directory, step));
      remove_all_path(temporary_path(directory, step));
    } else {
      rename_path(old, final);
      log::warn("'{}' is restored: the save that was to replace it was interrupted",
                final.string());
    }
  }
  if (!temporary.empty()) {
    log::info("'{}': the leftovers of {} interrupted save(s) are deleted", directory.string(),
              temporary.size());
  }
}

}  // namespace carousel
