#include "train/environment.h"

#include <spdlog/version.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <xxhash.h>

#include <CLI/Version.hpp>
#include <chrono>
#include <climits>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/base/error.h"
#include "core/base/parallel.h"
#include "core/cpu/blas.h"
#include "core/kernels/register.h"
#include "train/build_info.h"
#include "train/cpu_features.h"
#include "train/run_file.h"

namespace carousel {
namespace {

/// The value behind `key` in a file of "key : value" lines; empty if there is none.
std::string proc_value(const char* file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t begin = line.find_first_not_of(" \t:", key.size());
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

std::size_t proc_kilobytes(std::string_view key) {
  return std::strtoull(proc_value("/proc/meminfo", key).c_str(), nullptr, 10) << 10;
}

std::string system_text() {
  utsname system{};
  if (uname(&system) != 0) return "";
  return fmt::format("{} {} {}", system.sysname, system.release, system.machine);
}

std::vector<std::string> command_line() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> arguments;
  for (std::string argument; std::getline(in, argument, '\0');) arguments.push_back(argument);
  return arguments;
}

std::string dotted(int major, int minor, int patch) {
  return fmt::format("{}.{}.{}", major, minor, patch);
}

nlohmann::ordered_json library_versions() {
  return {{"blas", cpu::blas_description()},
          {"fmt", dotted(FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
          {"spdlog", dotted(SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH)},
          {"yaml-cpp", build_info().yaml_cpp},
          {"nlohmann-json", dotted(NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                                   NLOHMANN_JSON_VERSION_PATCH)},
          {"CLI11", CLI11_VERSION},
          {"xxhash", dotted(XXH_VERSION_MAJOR, XXH_VERSION_MINOR, XXH_VERSION_RELEASE)}};
}

}  // namespace

std::string version_text() {
  const BuildInfo& build = build_info();
  return fmt::format("carousel {}{}", build.version,
                     *build.git_commit == '\0' ? "" : fmt::format(" ({})", build.git_commit));
}

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32] = {};
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return gethostname(name, HOST_NAME_MAX) == 0 ? name : "";
}

std::string cpu_name() {
  const std::string name = proc_value("/proc/cpuinfo", "model name");
  return name.empty() ? "unknown CPU" : name;
}

std::string simd_text() {
  std::string text;
  for (const CpuFeature& feature : cpu_features()) {
    if (!feature.present) continue;
    if (!text.empty()) text += ' ';
    text += feature.name;
  }
  return text;
}

MemoryInfo memory_info() { return {proc_kilobytes("MemTotal"), proc_kilobytes("MemAvailable")}; }

nlohmann::ordered_json environment() {
  const BuildInfo& build = build_info();
  return {{"time", now_text()},
          {"command", command_line()},
          {"version", build.version},
          {"git_commit", build.git_commit},
          {"build",
           {{"type", build.build_type},
            {"compiler", build.compiler},
            {"cpu_arch", build.cpu_arch},
            {"sanitizers", build.sanitizers}}},
          {"host", host_name()},
          {"system", system_text()},
          {"cpu",
           {{"name", cpu_name()},
            {"simd", simd_text()},
            {"cores", std::thread::hardware_concurrency()},
            {"threads", num_threads()}}},
          {"memory_bytes", memory_info().total},
          {"cuda", cuda_status()},
          {"libraries", library_versions()}};
}

void write_environment(const std::filesystem::path& path) {
  // Arguments and host names need not be UTF-8.
  const std::string text =
      environment().dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  write_run_file(path, text + '\n');
}

}  // namespace carousel
