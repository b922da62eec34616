#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/base/parallel.h"
#include "core/cpu/blas.h"
#include "core/kernels/register.h"
#include "train/build_info.h"
#include "train/commands/commands.h"
#include "train/environment.h"

namespace carousel {
namespace {

/// Best of five products of n×n matrices.
double sgemm_gflops(std::int64_t n) {
  const auto size = static_cast<std::size_t>(n * n);
  const std::vector<float> a(size, 0.5f);
  const std::vector<float> b(size, 0.25f);
  std::vector<float> c(size);
  double best = 0.0;
  for (int i = 0; i < 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    cpu::gemm(false, false, n, n, n, 1.0f, a.data(), n, b.data(), n, 0.0f, c.data(), n);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    best = std::max(best, 2e-9 * static_cast<double>(n * n * n) / elapsed.count());
  }
  return best;
}

std::string gib(std::uintmax_t bytes) {
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1 << 30));
}

std::string disk_text() {
  std::error_code error;
  const std::filesystem::path here = std::filesystem::current_path(error);
  const auto space = std::filesystem::space(here, error);
  return error ? error.message()
               : fmt::format("{} free of {} at {}", gib(space.available), gib(space.capacity),
                             here.string());
}

std::string build_text() {
  const BuildInfo& build = build_info();
  return fmt::format(
      "{}, {}{}{}", build.build_type, build.compiler,
      *build.cpu_arch == '\0' ? "" : fmt::format(", -march={}", build.cpu_arch),
      *build.sanitizers == '\0' ? "" : fmt::format(", -fsanitize={}", build.sanitizers));
}

std::string threads_text() {
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  const int threads = num_threads();
  std::string text = fmt::format("{} (of {} the CPU has)", threads, cores);
  if (threads > cores) text += "; more than that only slows down, lower OMP_NUM_THREADS";
  if (threads < cores) text += "; OMP_NUM_THREADS or the affinity of the process limits them";
  return text;
}

/// OpenBLAS takes its AVX2 kernels on CPUs that are newer than it is.
std::string blas_text() {
  const std::string text = cpu::blas_description();
  const bool avx2_kernels =
      text.find("Haswell") != std::string::npos || text.find("Zen") != std::string::npos;
  const bool avx512 = simd_text().find("AVX512VL") != std::string::npos;
  return avx2_kernels && avx512
             ? text + "; this CPU has AVX-512: compare with OPENBLAS_CORETYPE=SkylakeX"
             : text;
}

std::string libraries_text() {
  std::string text;
  const auto libraries = environment().at("libraries");  // a copy: the temporary ends here
  for (const auto& [name, version] : libraries.items()) {
    if (name == "blas") continue;  // has a line of its own
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, version.get<std::string>());
  }
  return text;
}

void run() {
  const auto line = [](const char* name, const std::string& text) {
    fmt::print("{:<10} {}\n", name, text);
  };
  const MemoryInfo memory = memory_info();
  line("version", version_text());
  line("build", build_text());
  line("cpu", cpu_name());
  line("simd", simd_text());
  line("threads", threads_text());
  line("blas", blas_text());
  line("sgemm", fmt::format("{:.1f} GFLOP/s in float32, 1024 × 1024 matrices", sgemm_gflops(1024)));
  line("memory", fmt::format("{} available of {}", gib(memory.available), gib(memory.total)));
  line("disk", disk_text());
  line("cuda", cuda_status());
  line("libraries", libraries_text());
}

}  // namespace

void add_doctor(CLI::App& app) {
  CLI::App* command = app.add_subcommand("doctor", "Show what this build and this machine can do");
  command->footer("Changes nothing and refuses nothing.\nExample: carousel doctor");
  command->callback(run);
}

}  // namespace carousel
