// The processes of a run and their shares of the work.
#pragma once

#include <memory>

#include "core/comm/group.h"
#include "train/config/config.h"
#include "train/distributed/data_parallel.h"
#include "train/launcher/launch_environment.h"

namespace carousel {

/// Throws UsageError if the batch does not divide among `world_size` processes, or a process's part
/// into micro-batches, or if the deterministic mode cannot be had with that number.
void check_shares(const Config& config, int world_size);

ParallelOptions parallel_options(const Config& config);

/// Joins the other processes; null if this one is alone. All must have the same configuration and
/// build. Throws UsageError or PeerError: see comm::Group.
std::unique_ptr<comm::Group> join_group(const Config& config, const LaunchEnvironment& launch,
                                        Device device);

}  // namespace carousel
