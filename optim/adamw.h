// AdamW over a ParameterSet, with clipping by the global norm.
#pragma once

#include <cmath>
#include <functional>
#include <vector>

#include "core/kernels/optimizer.h"
#include "layers/parameters.h"
#include "optim/config.h"

namespace carousel {

class AdamW {
 public:
  /// Allocates m and v (zero) beside the materialised parameters, which must outlive this.
  AdamW(ParameterSet& parameters, const AdamWConfig& config);
  /// One that updates only the parts `owned` of the arenas, of which it has m and v: the others are
  /// other ranks'. They are sorted, disjoint, and start and end at multiples of 64 elements; the
  /// parameters hold their masters.
  AdamW(ParameterSet& parameters, const AdamWConfig& config, std::vector<ArenaRange> owned);

  /// Clips by the global norm, updates masters and compute copies; leaves all as it is if the norm
  /// is not finite. `step` counts from 1 and drives the bias corrections. Asynchronous where the
  /// device is. Deterministic.
  void update(std::int64_t step, double lr);
  /// The update alone, for callers that have set norm2(); `updated`, if given, is called with the
  /// index of each owned part once its update has been queued.
  void apply(std::int64_t step, double lr, const std::function<void(std::size_t)>& updated = {});
  /// ‖grad‖₂² over all ranks, () f64.
  const Tensor& norm2() const { return norm2_; }
  /// ‖grad‖₂ over the whole arena before clipping, as the last update found it; synchronises.
  double gradient_norm() const { return std::sqrt(norm2_.item()); }

  const std::vector<ArenaRange>& owned() const { return owned_; }
  /// The moments of the owned parts behind one another, f32: all of the arena if all is owned.
  const Tensor& m() const { return m_; }  ///< first moments
  const Tensor& v() const { return v_; }  ///< second moments

 private:
  ParameterSet& parameters_;
  AdamWConfig config_;
  std::vector<ArenaRange> owned_;
  std::vector<std::vector<AdamWSegment>> segments_;  // of each owned part, from its begin
  Tensor m_, v_, norm2_;
};

}  // namespace carousel
