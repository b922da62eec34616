// Does this model compute the same everywhere? One training step's forward and backward pass,
// compared tensor by tensor with a reference, and its gradients with finite differences.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor/device.h"
#include "train/config/config.h"

namespace carousel {

struct CheckOptions {
  /// Relative L2 errors that are accepted: of an op's result, of a parameter's gradient, and of a
  /// derivative along a random direction.
  double activations = 1e-4;
  double gradients = 1e-3;
  double differences = 1e-3;
  /// Parameters whose gradients are compared with finite differences, chosen by the run's seed.
  std::int64_t samples = 8;
};

/// ‖got − want‖₂ / ‖want‖₂ of one tensor.
struct CheckLine {
  std::string what;  ///< "op 12 [linear] output 0 f32 (8,256)", "gradient of backbone…"
  double error = 0.0;
  double bound = 0.0;
  bool ok() const { return error <= bound; }  // not so for NaN
};

struct CheckResult {
  std::string reference;  ///< what was compared with what
  std::vector<CheckLine> activations;
  std::vector<CheckLine> gradients;
  std::vector<CheckLine> differences;
  bool ok() const;
};

/// Runs the first micro-batch of the configuration's first step, dropout included, from the run's
/// initial weights. device cuda: float32 on the GPU against float32 on the CPU, every op's result
/// and every gradient; device cpu: float32 against float64. The gradients of either are then held
/// against central differences of the float64 loss along random ±1 directions. Keeps all
/// activations of the reference in memory. Throws UsageError or DataError for an unsuitable
/// configuration or data, and InternalError if the two runs are not the same sequence of ops.
CheckResult check_model(const Config& config, Device device, const CheckOptions& options = {});

/// The worst lines of each kind, all that failed, and a verdict.
std::string to_string(const CheckResult& result, std::size_t worst = 5);

}  // namespace carousel
