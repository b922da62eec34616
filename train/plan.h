// `carousel plan`: what a run will need, without starting it.
#pragma once

#include <cstdint>

#include "core/tensor/allocator.h"
#include "train/config/config.h"

namespace carousel {

struct Plan {
  int processes = 1;
  std::int64_t parameters = 0;
  std::int64_t decayed_parameters = 0;   ///< of these, under weight decay
  double forward_flops_per_token = 0.0;  ///< as LanguageModel counts them
  std::int64_t tokens_per_step = 0;
  DeviceType device = DeviceType::kCpu;  ///< what the memory is counted for
  MemoryStats memory;  ///< what training steps allocate in each process: real steps on meta
};

/// Builds the model for a vocabulary of `vocab` tokens and runs training steps of it on the meta
/// device, which counts every allocation and computes nothing. Scratch inside kernels is not
/// counted, but for what CUDA's matrix products keep; nor are NCCL's own buffers. `device: auto` is
/// what this machine has. The memory is each one's of `processes` that train together, on GPUs of
/// one host. Throws UsageError if the batch does not divide among them.
Plan make_plan(const Config& config, std::int64_t vocab, int processes = 1);

/// The plan as a table for people; `steps` is the length of the run.
std::string to_string(const Plan& plan, std::int64_t steps);

}  // namespace carousel
