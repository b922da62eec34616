// The CUDA kernels' table: every line's time on a cold L2 beside its peer, its goal and its floor,
// which counts the bytes that any version must move and the FLOPs over the copy and matrix rates
// measured in the same run. The peers' figures are from runs on the same kind of GPU.
// Usage: kernels             the table
//        kernels --parts     and the times of the kernels that make up the mLSTM's Hopper path
//        kernels --accuracy  instead, errors against float64 and whether two runs give the same
//        bits
// Before these, --pipelined or --tiled: the mLSTM with the kernels of other GPUs.
#include <cstdio>
#include <string_view>

#include "core/kernels/register.h"
#include "layers/mlstm/cuda/choice.h"
#include "layers/register.h"
#include "tests/bench/kernels/table.h"

namespace {

void print_table(bool parts) {
  using namespace carousel::bench;  // NOLINT: this function is about it
  const Clock clock;
  const Rates rates(clock);
  std::printf(
      "%s\n\ncopy rate %.2f TB/s (read + written), bf16 matrix rate %.0f TFLOP/s (8192^3)\n\n",
      carousel::cuda_status().c_str(), rates.copy * 1e-9, rates.matrix * 1e-9);
  const Table table(rates);
  mlstm_lines(clock, rates, table);
  slstm_lines(clock, table);
  if (parts) mlstm_parts(clock);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace carousel;  // NOLINT: main
  std::string_view option = argc > 1 ? argv[1] : "";
  if (option == "--pipelined" || option == "--tiled") {
    using mlstm::cuda::Kernels;
    mlstm::cuda::most_special = option == "--tiled" ? Kernels::kTiled : Kernels::kPipelined;
    --argc;
    ++argv;
    option = argc > 1 ? argv[1] : "";
  }
  const bool accuracy = option == "--accuracy";
  const bool parts = option == "--parts";
  if (argc > (accuracy ? 3 : 2) || (argc > 1 && !accuracy && !parts)) {
    std::fprintf(stderr,
                 "usage: kernels [--pipelined | --tiled] [--parts | --accuracy [substring of a "
                 "case]]\n");
    return static_cast<int>(ExitCode::kUsage);
  }
  register_cpu_kernels();
  register_cuda_kernels();
  register_layer_cpu_kernels();
  register_layer_cuda_kernels();
  if (!has_backend(DeviceType::kCuda)) {
    std::fprintf(stderr, "no GPU: %s\n", cuda_status().c_str());
    return static_cast<int>(ExitCode::kUsage);
  }
  try {
    if (accuracy) {
      const std::string_view filter = argc > 2 ? argv[2] : "";
      bench::mlstm_accuracy(filter);
      bench::slstm_accuracy(filter);
    } else {
      print_table(parts);
    }
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return static_cast<int>(e.code());
  }
  return 0;
}
