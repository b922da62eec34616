#include "train/check.h"

#include "train/commands/commands.h"
#include "train/model_factory.h"

namespace carousel {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  DeviceChoice device = DeviceChoice::kUseCuda;
  CheckOptions check;
  std::size_t worst = 5;
};

void run_check(const Options& options) {
  const Config config = load_config(options.config, options.overrides);
  const CheckResult result = check_model(config, choose_device(options.device), options.check);
  fmt::print("{}", to_string(result, options.worst));
  if (!result.ok()) {
    throw InternalError("{}: results differ by more than float32 explains; please report it",
                        result.reference);
  }
}

}  // namespace

void add_check(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "check", "Compare one step of a run's model on the GPU with the CPU, tensor by tensor");
  command->add_option("config", options->config, "YAML configuration")->required();
  command->add_option("overrides", options->overrides, "key=value pairs");
  add_device_option(*command, options->device);
  command->get_option("--device")
      ->description(
          "cuda: float32 against the CPU's float32; cpu: float32 against float64 (default: cuda)");
  command->add_option("--samples", options->check.samples, "parameters for finite differences")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--activations", options->check.activations, "relative error of op results")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--gradients", options->check.gradients, "relative error of gradients")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--worst", options->worst, "lines to show of each kind")
      ->capture_default_str();
  command->footer(
      "Example: carousel check configs/shakespeare_gpu.yaml data.batch_size=2\n"
      "Exit code 0 if all agree, 70 if not.");
  command->callback([options] { run_check(*options); });
}

}  // namespace carousel
