// Which process of how many this is: what launchers tell the processes that they start.
#pragma once

#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>

namespace carousel {

/// One process of a group, and where the group meets. As it stands: a process alone.
struct LaunchEnvironment {
  std::string launcher = "none";  ///< none, torchrun (also `carousel run`), mpirun or srun
  int rank = 0;                   ///< in [0, world_size)
  int world_size = 1;
  int local_rank = 0;                     ///< among the processes of this host: which GPU to take
  int local_world_size = 1;               ///< on this host
  std::string master_addr = "127.0.0.1";  ///< host of rank 0
  int master_port = 29500;
  int restart_count = 0;  ///< how often the launcher has restarted the group
  std::string run_id;     ///< the launcher's name of the job; may be empty
};

/// The value of an environment variable; nullptr if it is not set.
using EnvironmentLookup = std::function<const char*(const char* name)>;

/// Throws UsageError if `id`, the value of `name`, is no name for a run, which becomes part of keys
/// and of lines: control characters, or more than 200 bytes.
void check_run_id(std::string_view name, std::string_view id);

/// Reads the environment, in this order:
///   torchrun, carousel run  RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, …
///   mpirun (Open MPI)       OMPI_COMM_WORLD_RANK, …_SIZE, …_LOCAL_RANK, …_LOCAL_SIZE
///   mpirun (MPICH, Intel)   PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS
///   srun                    SLURM_PROCID, … of a job step, also where its PMI-2 plugin sets
///                           PMI_RANK; a batch script itself is not one
/// MPI and Slurm leave it to us where the group meets, unless MASTER_ADDR and MASTER_PORT say so:
/// on Slurm's first host, or on this one if all processes are here; the port follows from the job's
/// number, so that two jobs on a host do not collide. Where torchrun serves a store of its own at
/// MASTER_PORT, the group meets at a port that follows from this and the run's id. Throws
/// UsageError for values that are missing or contradict each other.
LaunchEnvironment detect_launch_environment(const EnvironmentLookup& lookup = ::getenv);

}  // namespace carousel
