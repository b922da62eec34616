#include "train/peak_flops.h"

#include <array>

namespace carousel {
namespace {

struct Peak {
  std::string_view name;
  double bf16, f32;  // TFLOP/s
};

// A name stands for itself and for what continues it with a memory size, a form or a count ("NVIDIA
// A100-SXM4-80GB"); the longest that fits counts.
constexpr std::array kPeaks = {
    Peak{"NVIDIA A100", 312.0, 19.5},
    Peak{"NVIDIA A800", 312.0, 19.5},
    Peak{"NVIDIA A10", 125.0, 31.2},
    Peak{"NVIDIA A30", 165.0, 10.3},
    Peak{"NVIDIA A40", 149.7, 37.4},
    Peak{"NVIDIA RTX A6000", 154.8, 38.7},
    Peak{"NVIDIA L4", 121.0, 30.3},
    Peak{"NVIDIA L40", 181.0, 90.5},
    Peak{"NVIDIA L40S", 362.0, 91.6},
    Peak{"NVIDIA RTX 6000 Ada Generation", 364.2, 91.1},
    Peak{"NVIDIA H100", 989.4, 66.9},
    Peak{"NVIDIA H100 PCIe", 756.0, 51.2},
    Peak{"NVIDIA H100 NVL", 835.0, 60.0},
    Peak{"NVIDIA H800", 989.4, 66.9},
    Peak{"NVIDIA H800 PCIe", 756.0, 51.2},
    Peak{"NVIDIA H200", 989.4, 66.9},
    Peak{"NVIDIA H200 NVL", 835.0, 60.0},
    Peak{"NVIDIA GH200", 989.4, 66.9},
    Peak{"NVIDIA B200", 2250.0, 80.0},
    Peak{"NVIDIA GeForce RTX 3090", 71.2, 35.6},
    Peak{"NVIDIA GeForce RTX 3090 Ti", 80.0, 40.0},
    Peak{"NVIDIA GeForce RTX 4080", 97.5, 48.7},
    Peak{"NVIDIA GeForce RTX 4090", 165.2, 82.6},
    Peak{"NVIDIA GeForce RTX 5090", 209.5, 104.8},
};

// Whether `rest`, behind a known name, tells no other chip: "", "-SXM4-80GB", " 80GB HBM3", "
// PCIe".
bool is_variant(std::string_view rest) {
  if (rest.empty() || rest.starts_with('-')) return true;
  if (!rest.starts_with(' ')) return false;
  rest.remove_prefix(1);
  return rest.starts_with("PCIe") || (rest.front() >= '0' && rest.front() <= '9');
}

}  // namespace

std::optional<double> peak_flops(std::string_view device_name, DType precision, bool tf32) {
  const Peak* best = nullptr;
  for (const Peak& peak : kPeaks) {
    if (!device_name.starts_with(peak.name)) continue;
    if (!is_variant(device_name.substr(peak.name.size()))) continue;
    if (best == nullptr || peak.name.size() > best->name.size()) best = &peak;
  }
  if (best == nullptr) return std::nullopt;
  if (precision == DType::kBF16) return best->bf16 * 1e12;
  // Tensor cores take TF32 operands, which are twice as wide, at half the rate of bf16.
  if (precision == DType::kF32 && tf32) return best->bf16 / 2 * 1e12;
  if (precision == DType::kF32) return best->f32 * 1e12;
  return std::nullopt;
}

}  // namespace carousel
