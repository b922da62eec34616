#include "core/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <memory>
#include <vector>

#include "core/base/error.h"

namespace carousel {
namespace {

std::shared_ptr<spdlog::logger> file_logger;

}  // namespace

void init_logging(const std::string& file) {
  auto console = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  console->set_pattern("%^%l%$: %v");
  std::vector<spdlog::sink_ptr> sinks{console};
  if (!file.empty()) {
    try {
      auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
      sink->set_pattern("%Y-%m-%d %H:%M:%S %l: %v");
      sinks.push_back(sink);
      file_logger = std::make_shared<spdlog::logger>("file", sink);
      file_logger->flush_on(spdlog::level::info);
    } catch (const spdlog::spdlog_ex& e) {
      throw UsageError("cannot open the log file '{}': {}; choose a writable output_dir", file,
                       e.what());
    }
  }
  auto logger = std::make_shared<spdlog::logger>("carousel", sinks.begin(), sinks.end());
  logger->flush_on(spdlog::level::info);
  logger->set_level(spdlog::default_logger()->level());
  spdlog::set_default_logger(std::move(logger));
}

void log_to_file(const std::string& line) {
  if (file_logger != nullptr) file_logger->info(line);
}

}  // namespace carousel
