// Arrivals at barriers in shared memory.
#pragma once

namespace carousel::cuda {

/// Of a warp at an mbarrier: lane 0 speaks for all, behind __syncwarp(). compute-sanitizer's
/// racecheck takes it to speak for itself alone, and reports what the other lanes wrote or read; in
/// a build for it every lane arrives.
#ifdef CAROUSEL_RACECHECK
inline constexpr int kWarpArrivals = 32;
#else
inline constexpr int kWarpArrivals = 1;
#endif

}  // namespace carousel::cuda
