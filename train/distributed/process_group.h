// The processes of a run and their shares of the work.
#pragma once

#include <memory>

#include "core/comm/group.h"
#include "train/config/config.h"
#include "train/distributed/data_parallel.h"
#include "train/launcher/launch_environment.h"

namespace carousel {

/// Runs what all processes of a host do alike, such as joining their group. If it throws
/// comm::KnownToAll, the first process of the host tells it; in the others its message becomes
/// empty.
template <class Work>
auto told_once(const LaunchEnvironment& launch, Work&& work) {
  try {
    return work();
  } catch (const comm::KnownToAll&) {
    if (launch.local_rank == 0) throw;
  }
  throw UsageError("");
}

/// Throws comm::KnownToAll if the batch does not divide among `world_size` processes, or a
/// process's part into micro-batches, or if the deterministic mode cannot be had with that number.
void check_shares(const Config& config, int world_size);

/// Which of the `gpus` GPUs that it sees a process takes: its local rank's; the only one, where
/// Slurm or MPI has bound one to each process. Throws comm::KnownToAll if the host has fewer than
/// processes.
int gpu_of_process(const LaunchEnvironment& launch, int gpus);

/// The device of this process; see choose_device().
Device device_of_process(DeviceChoice choice, const LaunchEnvironment& launch);

ParallelOptions parallel_options(const Config& config);

/// Joins the other processes; null if this one is alone. All must have the same configuration and
/// build. Throws UsageError or PeerError: see comm::Group.
std::unique_ptr<comm::Group> join_group(const Config& config, const LaunchEnvironment& launch,
                                        Device device);

}  // namespace carousel
