#include "train/distributed/process_group.h"

#include <algorithm>

#include "core/kernels/register.h"
#include "train/build_info.h"
#include "train/environment.h"
#include "train/model_factory.h"

namespace carousel {

void check_shares(const Config& config, int world_size) {
  const std::int64_t batch = config.data.batch_size;
  if (batch % world_size != 0) {
    throw comm::KnownToAll(
        "data.batch_size = {} does not divide among {} processes; choose a multiple of {}", batch,
        world_size, world_size);
  }
  const std::int64_t share = batch / world_size;
  const std::int64_t micro = config.micro_batch_size.value_or(share);
  if (world_size > 1 && share % micro != 0) {
    throw comm::KnownToAll(
        "micro_batch_size = {} does not divide the {} sequences of each of {} processes "
        "(data.batch_size = {})",
        micro, share, world_size, batch);
  }
  if (config.distributed.deterministic && (world_size & (world_size - 1)) != 0) {
    throw comm::KnownToAll(
        "distributed.deterministic needs a power of two of processes, there are {}; start 1, 2, 4, "
        "… or turn it off",
        world_size);
  }
}

int gpu_of_process(const LaunchEnvironment& launch, int gpus) {
  const int needed = std::max(launch.local_world_size, launch.local_rank + 1);
  if (needed <= gpus) return launch.local_rank;
  if (gpus == 1 && (launch.launcher == "srun" || launch.launcher == "mpirun")) return 0;
  throw comm::KnownToAll(
      "{} processes on this host, but {} GPU{}; start at most one process a GPU, or set device: "
      "cpu",
      needed, gpus, gpus == 1 ? "" : "s");
}

Device device_of_process(DeviceChoice choice, const LaunchEnvironment& launch) {
  const int gpus = choice == DeviceChoice::kUseCpu ? 0 : cuda_device_count();
  return choose_device(choice, gpus == 0 ? 0 : gpu_of_process(launch, gpus));
}

ParallelOptions parallel_options(const Config& config) {
  return {.zero_stage = static_cast<int>(config.distributed.zero_stage),
          .deterministic = config.distributed.deterministic,
          .overlap = config.distributed.overlap,
          .bucket_bytes = config.distributed.bucket_mb << 20};
}

std::unique_ptr<comm::Group> join_group(const Config& config, const LaunchEnvironment& launch,
                                        Device device) {
  if (launch.world_size == 1) return nullptr;
  const comm::Milliseconds timeout{config.distributed.timeout_s * 1000};
  const comm::Placement placement{
      .rank = launch.rank,
      .world_size = launch.world_size,
      .master_addr = launch.master_addr,
      .master_port = static_cast<std::uint16_t>(launch.master_port),
      .prefix = fmt::format("{}/{}/", launch.run_id, launch.restart_count),
      .gpu = backend_for(device.type).unique_id(device)};
  const std::string identity =
      fmt::format("build={}, {}\n{}", version_text(), build_info().compiler, key_values(config));
  return std::make_unique<comm::Group>(placement, device, identity, timeout, timeout);
}

}  // namespace carousel
