// The examples for clusters, without a cluster: what they start is started here.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <yaml-cpp/yaml.h>

#include <map>
#include <set>
#include <sstream>

#include "core/base/error.h"
#include "tests/support/background_program.h"
#include "tests/support/group_program.h"
#include "tests/train/distributed/support.h"
#include "train/launcher/launch_environment.h"

namespace carousel {
namespace {

using testing::BackgroundProgram;
using testing::free_port;
using testing::Outcome;
using testing::read_file;
using testing::run_program;

std::string example(const std::string& name) {
  return std::string(CAROUSEL_LAUNCH_EXAMPLES) + "/" + name;
}

class KubernetesExample : public testing::TinyRun {
 protected:
  KubernetesExample() {
    for (const YAML::Node& document : YAML::LoadAllFromFile(example("kubernetes.yaml"))) {
      (document["kind"].as<std::string>() == "Service" ? service_ : job_) = document;
    }
    pod_ = job_["spec"]["template"]["spec"];
    container_ = pod_["containers"][0];
  }

  /// The container's command line behind "carousel run", `extra` in front.
  std::string arguments(const std::string& extra) const {
    std::string text = fmt::format("run {}", extra);
    for (const YAML::Node& argument : container_["args"]) {
      text += fmt::format(" {}", argument.as<std::string>());
    }
    return text;
  }

  YAML::Node service_, job_, pod_, container_;
};

TEST_F(KubernetesExample, NamesAgree) {
  const auto job = job_["metadata"]["name"].as<std::string>();
  const auto service = service_["metadata"]["name"].as<std::string>();
  EXPECT_EQ(job_["spec"]["completionMode"].as<std::string>(), "Indexed");
  EXPECT_EQ(service_["spec"]["clusterIP"].as<std::string>(), "None");
  EXPECT_EQ(service_["spec"]["selector"]["batch.kubernetes.io/job-name"].as<std::string>(), job);
  EXPECT_EQ(pod_["subdomain"].as<std::string>(), service);
  EXPECT_EQ(container_["command"].as<std::vector<std::string>>(),
            (std::vector<std::string>{"carousel", "run"}));
  EXPECT_NE(arguments("").find(fmt::format("--master-addr={}-0.{}", job, service)),
            std::string::npos);
  EXPECT_NE(
      arguments("").find("--master-port=" + service_["spec"]["ports"][0]["port"].as<std::string>()),
      std::string::npos);
  EXPECT_NE(
      arguments("").find("--nproc-per-node=" +
                         container_["resources"]["limits"]["nvidia.com/gpu"].as<std::string>()),
      std::string::npos);
  for (const YAML::Node& mount : container_["volumeMounts"]) {
    int volumes = 0;
    for (const YAML::Node& volume : pod_["volumes"]) {
      volumes += volume["name"].as<std::string>() == mount["name"].as<std::string>() ? 1 : 0;
    }
    EXPECT_EQ(volumes, 1) << mount["name"];
  }
}

TEST_F(KubernetesExample, PodsStopWhereTheProgramsExitCodesSay) {
  std::map<std::string, std::set<int>> codes;
  for (const YAML::Node& rule : job_["spec"]["podFailurePolicy"]["rules"]) {
    if (!rule["onExitCodes"]) continue;
    EXPECT_EQ(rule["onExitCodes"]["containerName"].as<std::string>(),
              container_["name"].as<std::string>());
    for (const YAML::Node& code : rule["onExitCodes"]["values"]) {
      codes[rule["action"].as<std::string>()].insert(code.as<int>());
    }
  }
  EXPECT_EQ(codes["Ignore"], std::set<int>{static_cast<int>(ExitCode::kPreempted)});
  EXPECT_EQ(codes["FailJob"],
            (std::set<int>{static_cast<int>(ExitCode::kUsage), static_cast<int>(ExitCode::kData),
                           static_cast<int>(ExitCode::kCheckpoint),
                           static_cast<int>(ExitCode::kNonFinite)}));
}

TEST_F(KubernetesExample, ThePodsAreOneRun) {
  const auto pods = job_["spec"]["completions"].as<int>();
  EXPECT_EQ(job_["spec"]["parallelism"].as<int>(), pods);
  const YAML::Node variable = container_["env"][0];
  EXPECT_EQ(variable["valueFrom"]["fieldRef"]["fieldPath"].as<std::string>(),
            "metadata.annotations['batch.kubernetes.io/job-completion-index']");
  std::set<int> ranks;
  for (int pod = 0; pod < pods; ++pod) {
    ::setenv(variable["name"].as<std::string>().c_str(), std::to_string(pod).c_str(), 1);
    const Outcome outcome = run_program(arguments("--dry-run"));
    ::unsetenv(variable["name"].as<std::string>().c_str());
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    std::istringstream lines(outcome.out);
    for (std::string line; std::getline(lines, line);) {
      std::map<std::string, std::string> environment;
      std::istringstream words(line);
      for (std::string word; words >> word && word.find('=') != std::string::npos;) {
        environment[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
      }
      const LaunchEnvironment launch = detect_launch_environment([&](const char* name) {
        const auto found = environment.find(name);
        return found == environment.end() ? nullptr : found->second.c_str();
      });
      EXPECT_EQ(launch.world_size, 8 * pods);
      EXPECT_EQ(launch.master_addr, "carousel-0.carousel");
      EXPECT_EQ(launch.master_port, 29500);
      EXPECT_EQ(launch.rank, 8 * pod + launch.local_rank);
      ranks.insert(launch.rank);
    }
  }
  EXPECT_EQ(std::ssize(ranks), 8 * pods);
}

// slurm.sbatch with a srun that starts its tasks here.
class SlurmExampleDist : public testing::TinyRun {
 protected:
  SlurmExampleDist() {
    write_script("srun", R"(#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
code=0
for ((node = 0; node < SLURM_NNODES; ++node)); do
  for ((task = 0; task < SLURM_NTASKS_PER_NODE; ++task)); do
    SLURM_STEP_ID=0 SLURM_PROCID=$((node * SLURM_NTASKS_PER_NODE + task)) SLURM_LOCALID=$task \
      SLURM_NODEID=$node "$@" &
    tasks+=($!)
  done
done
for task in "${tasks[@]}"; do echo "$task" >>"$TASKS"; done
for task in "${tasks[@]}"; do
  mine=0
  wait "$task" || mine=$?
  code=$((mine > code ? mine : code))
done
exit "$code"
)");
    write_script("scontrol", "#!/usr/bin/env bash\necho \"$*\" >\"$REQUEUED\"\n");
  }

  void write_script(const std::string& name, const std::string& text) const {
    ::chmod(dir_.write("bin/" + name, text).c_str(), 0755);
  }

  /// What Slurm tells a batch script.
  std::string variables() const {
    return fmt::format(
        "PATH='{0}':$PATH TASKS='{1}' REQUEUED='{2}' CAROUSEL='" CAROUSEL_PROGRAM
        "' SLURM_JOB_ID=4711 SLURM_NNODES=2 SLURM_NTASKS=4 SLURM_NTASKS_PER_NODE=2 "
        "SLURM_TASKS_PER_NODE='2(x2)' SLURM_NODELIST='localhost,otherhost' SLURM_PROCID=0 "
        "SLURM_CPUS_PER_TASK=1 MASTER_PORT={3}",
        dir_ / "bin", dir_ / "tasks", dir_ / "requeued", free_port());
  }

  std::string script(const std::string& overrides) const {
    const std::string train = command("run", overrides);
    return fmt::format("bash '{}' {}", example("slurm.sbatch"), train.substr(6));
  }
};

TEST_F(SlurmExampleDist, TheTasksAreOneRun) {
  const std::string log = dir_ / "log";
  const int status =
      std::system(fmt::format("{} {} >'{}' 2>&1", variables(), script("steps=5"), log).c_str());
  EXPECT_EQ(status, 0) << read_file(log);
  EXPECT_NE(read_file(log).find("4 processes over gloo"), std::string::npos) << read_file(log);
  EXPECT_NE(read_file(log).find("step 5/5"), std::string::npos) << read_file(log);
  EXPECT_EQ(read_file(dir_ / "requeued"), "");
}

TEST_F(SlurmExampleDist, AStoppedJobIsQueuedAgain) {
  BackgroundProgram job(script("steps=100000 logging.every=1"), variables(), "env");
  ASSERT_TRUE(job.prints("step 3/")) << job.output();
  std::istringstream tasks(read_file(dir_ / "tasks"));
  for (pid_t task = 0; tasks >> task;) ::kill(task, SIGUSR1);
  EXPECT_EQ(job.wait(), 75) << job.output();
  EXPECT_EQ(read_file(dir_ / "requeued"), "requeue 4711\n");
}

}  // namespace
}  // namespace carousel
