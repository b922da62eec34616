// `carousel run`: starts the processes of this host, and starts them again when one fails.
#pragma once

#include <string>
#include <vector>

#include "train/launcher/launch_plan.h"

namespace carousel {

/// Runs `program` with the command line `command` in plan.local_world_size processes until all have
/// ended well. When one fails, the others are ended and, up to plan.max_restarts times, all are
/// started again, unless that could not help: after bad usage, data, a bad checkpoint or a
/// non-finite loss (exit codes 2, 3, 4, 6), or when a signal has asked to stop. The first to fail
/// is named at once, as a warning, and again at the end: throws an Error that names the first rank
/// to fail, with that worker's exit code (128 + the signal that ended it); Preempted if the workers
/// saved and stopped.
void launch(LaunchPlan plan, const std::string& program, const std::vector<std::string>& command);

/// The command and the variables of every worker, one worker a line.
std::string describe_launch(const LaunchPlan& plan, const std::vector<std::string>& command);

}  // namespace carousel
