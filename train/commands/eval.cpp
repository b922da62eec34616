#include <nlohmann/json.hpp>

#include "data/dataset.h"
#include "train/commands/commands.h"
#include "train/evaluate.h"
#include "train/run_directory.h"

namespace carousel {
namespace {

struct EvalOptions {
  std::string path;
  std::vector<std::string> data;
  std::int64_t batches = 0;
  std::int64_t seq_len = 0;
  bool by_position = false;
  bool json = false;
  DeviceChoice device = DeviceChoice::kAuto;
  std::optional<DType> precision;
};

Dataset validation_of(const TrainedModel& trained, const EvalOptions& options) {
  DataConfig data = trained.config.data;
  if (data.task && (!options.data.empty() || options.seq_len > 0)) {
    throw UsageError("{}: the run's task, {}, makes its own sequences; leave the option out",
                     options.data.empty() ? "--seq-len" : "--data", data.task->name);
  }
  if (!options.data.empty()) {
    data.train = options.data;  // opened, not read: the loader wants both
    data.val = {.files = options.data};
  }
  if (options.seq_len > 0) data.seq_len = options.seq_len;
  Dataset dataset =
      open_dataset(data,
                   {.seed = static_cast<std::uint64_t>(trained.config.seed),
                    .eval_batches = options.batches > 0 || !data.task ? options.batches
                                                                      : trained.config.eval.batches,
                    .vocab_size = trained.config.model.vocab_size.value_or(0)},
                   trained.tokenizer);
  if (dataset.validation == nullptr) {
    throw UsageError("the run has no validation data; give files with --data");
  }
  return dataset;
}

nlohmann::json to_json(const EvalResult& result) {
  nlohmann::json json = {{"loss", result.loss},
                         {"perplexity", result.perplexity()},
                         {"accuracy", result.accuracy},
                         {"targets", result.targets},
                         {"targets_by_position", result.targets_by_position},
                         {"correct_by_position", result.correct_by_position},
                         {"loss_by_position", result.loss_by_position}};
  if (result.bits_per_byte) json["bits_per_byte"] = *result.bits_per_byte;
  return json;
}

void run_eval(const EvalOptions& options) {
  const TrainedModel trained = load_trained_model(options.path, options.device, options.precision);
  const Dataset dataset = validation_of(trained, options);
  const EvalResult result =
      evaluate(*trained.model, *dataset.validation, trained.config.micro_batch_size.value_or(0),
               trained.tokenizer.get());
  if (options.json) {
    fmt::print("{}\n", to_json(result).dump());
    return;
  }
  fmt::print("{} at step {}\n{}\n{}\n", trained.checkpoint.string(), trained.step,
             dataset.validation->describe(), to_string(result));
  if (options.by_position) fmt::print("{}", by_position(result));
}

}  // namespace

void add_device_option(CLI::App& command, DeviceChoice& device) {
  const std::map<std::string, DeviceChoice> names = {{"auto", DeviceChoice::kAuto},
                                                     {"cpu", DeviceChoice::kUseCpu},
                                                     {"cuda", DeviceChoice::kUseCuda}};
  command.add_option("--device", device, "auto, cpu or cuda (default: auto)")
      ->transform(CLI::CheckedTransformer(names).description(""));
}

void add_precision_option(CLI::App& command, std::optional<DType>& precision) {
  const std::map<std::string, DType> names = {{"f32", DType::kF32}, {"bf16", DType::kBF16}};
  command
      .add_option("--precision", precision,
                  "f32, or bf16 with half the memory for weights (default: the run's)")
      ->transform(CLI::CheckedTransformer(names).description(""));
}

void add_eval(CLI::App& app) {
  const auto options = std::make_shared<EvalOptions>();
  CLI::App* command = app.add_subcommand("eval", "Evaluate a trained model on held-out data");
  command->add_option("run", options->path, "run directory, or one of its checkpoints")->required();
  command->add_option("--data", options->data, "files (default: the run's validation data)");
  command
      ->add_option("--batches", options->batches,
                   "how many batches; 0: all; of a task, eval.batches")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seq-len", options->seq_len, "tokens a window; 0: as in training")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--by-position", options->by_position, "also loss and accuracy by position");
  command->add_flag("--json", options->json, "one JSON object instead of text");
  add_device_option(*command, options->device);
  add_precision_option(*command, options->precision);
  command->footer("Example: carousel eval runs/quickstart --seq-len 1024 --by-position");
  command->callback([options] { run_eval(*options); });
}

}  // namespace carousel
