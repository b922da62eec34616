// AdamW over a ParameterSet, with clipping by the global norm.
#pragma once

#include <cmath>
#include <vector>

#include "core/kernels/optimizer.h"
#include "layers/parameters.h"
#include "optim/config.h"

namespace carousel {

class AdamW {
 public:
  /// Allocates m and v (zero) beside the materialised parameters, which must outlive this.
  AdamW(ParameterSet& parameters, const AdamWConfig& config);

  /// Clips by the global norm, updates masters and compute copies; leaves all as it is if the norm
  /// is not finite. `step` counts from 1 and drives the bias corrections. Asynchronous where the
  /// device is. Deterministic.
  void update(std::int64_t step, double lr);
  /// ‖grad‖₂ over the whole arena before clipping, as the last update() found it; synchronises.
  double gradient_norm() const { return std::sqrt(norm2_.item()); }

  const Tensor& m() const { return m_; }  ///< (arena_size) f32, first moments
  const Tensor& v() const { return v_; }  ///< (arena_size) f32, second moments

 private:
  ParameterSet& parameters_;
  AdamWConfig config_;
  std::vector<AdamWSegment> segments_;
  Tensor m_, v_, norm2_;
};

}  // namespace carousel
