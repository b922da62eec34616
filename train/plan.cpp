#include "train/plan.h"

#include "core/kernels/matmul.h"
#include "optim/adamw.h"
#include "train/distributed/process_group.h"
#include "train/model_factory.h"
#include "train/step.h"
#include "train/units.h"

namespace carousel {
namespace {

// A run's batches wait in the host's memory, which on the CPU is the device's.
Batch blank_batch(const DataConfig& data, std::int64_t sequences, DeviceType device) {
  const RoleScope role(Role::kData);
  const Device place = device == DeviceType::kCpu ? kMeta : kCpu;
  const Shape shape{sequences, data.seq_len};
  Batch batch;
  batch.tokens = Tensor::zeros(shape, DType::kI32, place);
  batch.targets = Tensor::zeros(shape, DType::kI32, place);
  if (data.document_boundaries) batch.reset = Tensor::zeros(shape, DType::kU8, place);
  batch.target_count = shape.numel();
  return batch;
}

DeviceType planned_device(DeviceChoice choice) {
  const bool cuda = choice == DeviceChoice::kUseCuda ||
                    (choice == DeviceChoice::kAuto && has_backend(DeviceType::kCuda));
  return cuda ? DeviceType::kCuda : DeviceType::kCpu;
}

}  // namespace

Plan make_plan(const Config& config, std::int64_t vocab, int processes) {
  check_shares(config, processes);
  const auto model = make_model(config.model, vocab);
  Plan plan;
  plan.processes = processes;
  for (const Parameter& p : model->parameters().all()) {
    plan.parameters += p.spec.shape.numel();
    if (p.spec.decay) plan.decayed_parameters += p.spec.shape.numel();
  }
  plan.forward_flops_per_token = model->forward_flops_per_token(config.data.seq_len);
  plan.tokens_per_step = config.data.batch_size * config.data.seq_len;
  plan.device = planned_device(config.device);
  const Device device = plan.device == DeviceType::kCuda ? kMetaCuda : kMeta;
  drop_memory_cache(device);
  reset_peak_memory(device);
  Tensor scratch;
  if (plan.device == DeviceType::kCuda) {
    const RoleScope role(Role::kWorkspace);
    scratch = Tensor::empty({static_cast<std::int64_t>(kCudaMatmulScratch)}, DType::kU8, device);
  }
  ParameterSet& parameters = model->parameters();
  parameters.lay_out(processes);
  const ParallelOptions parallel = parallel_options(config);
  const auto buckets = make_buckets(parameters, parallel, config.precision, processes);
  const auto owned = parallel.zero_stage == 1 && processes > 1
                         ? owned_ranges(buckets, 0, processes)
                         : std::vector<ArenaRange>{{0, parameters.arena_size()}};
  parameters.materialise(device, config.precision, owned);
  Tensor inbox;  // what the other GPUs send of a bucket
  if (plan.device == DeviceType::kCuda && processes > 1) {
    const RoleScope role(Role::kWorkspace);
    inbox = Tensor::empty({largest_bucket(buckets) / processes * (processes - 1)},
                          parameters.grad().dtype(), device);
  }
  AdamW optimizer(parameters, config.optim, owned);
  const Batch batch = blank_batch(config.data, config.data.batch_size / processes, plan.device);
  // The first step shows the peak, the second whether the freed memory serves it again.
  for (const std::int64_t step : {1, 2}) {
    run_step(*model, optimizer, batch,
             {.step = step,
              .micro_batch_size = config.micro_batch_size.value_or(0),
              .recompute = config.recompute,
              .deterministic = config.distributed.deterministic});
  }
  plan.memory = memory_stats(device);
  return plan;
}

std::string to_string(const Plan& plan, std::int64_t steps) {
  const double step_flops =
      3.0 * plan.forward_flops_per_token * static_cast<double>(plan.tokens_per_step);
  std::string text = fmt::format(
      "parameters        {:>12}  ({} under weight decay)\n"
      "forward FLOPs     {:>12}  per token\n"
      "training FLOPs    {:>12}  per step of {} tokens\n"
      "whole run         {:>12}  in {} steps of {} tokens in all\n"
      "memory of a training step{}{}, peak by role\n",
      with_unit(static_cast<double>(plan.parameters), 1000.0, ""),
      with_unit(static_cast<double>(plan.decayed_parameters), 1000.0, ""),
      with_unit(plan.forward_flops_per_token, 1000.0, "FLOP"),
      with_unit(step_flops, 1000.0, "FLOP"), plan.tokens_per_step,
      with_unit(step_flops * static_cast<double>(steps), 1000.0, "FLOP"), steps,
      with_unit(static_cast<double>(plan.tokens_per_step) * static_cast<double>(steps), 1000.0, ""),
      plan.processes > 1 ? fmt::format(" in each of {} processes", plan.processes) : "",
      plan.device == DeviceType::kCuda ? " on the GPU" : "");
  for (int r = 0; r < kNumRoles; ++r) {
    const std::size_t peak = plan.memory.peak[static_cast<std::size_t>(r)];
    if (peak > 0)
      text += fmt::format("  {:<14}  {:>12}\n", name_of(static_cast<Role>(r)), bytes_text(peak));
  }
  return text +
         fmt::format("  {:<14}  {:>12}  at once\n  {:<14}  {:>12}  with what is kept for reuse\n",
                     "together", bytes_text(plan.memory.total_peak), "held",
                     bytes_text(plan.memory.reserved));
}

}  // namespace carousel
