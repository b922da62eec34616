#include "train/run_file.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/base/error.h"
#include "core/base/file.h"

namespace carousel {

std::string write_error(const std::filesystem::path& path, std::string_view remedy) {
  return fmt::format("cannot write '{}': {}; {}", path.string(), std::strerror(errno), remedy);
}

void write_run_file(const std::filesystem::path& path, std::string_view text) {
  try {
    replace_file(path, [&](OutputFile& file) { file.write(text); });
  } catch (const Error& e) {
    throw UsageError("{}; choose a writable output_dir", e.what());
  }
}

GrowingFile::GrowingFile(std::filesystem::path path)
    : path_(std::move(path)), file_(path_, std::ios::app | std::ios::binary) {
  if (!file_) throw UsageError("{}", write_error(path_, "choose a writable output_dir"));
}

void GrowingFile::write(std::string_view bytes) {
  file_ << bytes << std::flush;
  if (!file_) throw UsageError("{}", write_error(path_, "make room and start again to continue"));
}

}  // namespace carousel
