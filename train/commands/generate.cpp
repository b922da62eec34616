#include "train/generation.h"

#include <cstdio>
#include <random>

#include "train/commands/commands.h"
#include "train/run_directory.h"

namespace carousel {
namespace {

struct GenerateOptions {
  std::string path;
  std::string prompt = "\n";
  std::int64_t tokens = 200;
  std::optional<std::uint64_t> seed;
  SamplingOptions sampling{.temperature = 0.8};
  DeviceChoice device = DeviceChoice::kAuto;
  std::optional<DType> precision;
};

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void run_generate(GenerateOptions options) {
  const TrainedModel trained = load_trained_model(options.path, options.device, options.precision);
  options.sampling.vocab_size = trained.tokenizer->vocab_size();
  options.sampling.seed = options.seed.value_or(std::random_device{}());
  const auto prompt = trained.tokenizer->encode(options.prompt, {.name = "--prompt"});
  StreamDecoder decoder(*trained.tokenizer);
  for (const std::int32_t token : prompt) print(decoder.push(token));
  generate(*trained.model, prompt, options.tokens, options.sampling, [&](std::int32_t token) {
    print(decoder.push(token));
    return std::ferror(stdout) == 0;  // a reader that went away ends it
  });
  print(decoder.finish() + "\n");
}

}  // namespace

void add_generate(CLI::App& app) {
  const auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = app.add_subcommand("generate", "Write text with a trained model");
  command->add_option("run", options->path, "run directory, or one of its checkpoints")->required();
  command->add_option("-p,--prompt", options->prompt, "text to continue (default: a new line)");
  command->add_option("-n,--tokens", options->tokens, "how many tokens to write")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("-t,--temperature", options->sampling.temperature, "0: the likeliest token")
      ->capture_default_str();
  command->add_option("--top-k", options->sampling.top_k, "draw from the k likeliest; 0: all")
      ->capture_default_str();
  command
      ->add_option("--top-p", options->sampling.top_p,
                   "draw from the likeliest that together reach this probability")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "the same seed, the same text (default: random)");
  add_device_option(*command, options->device);
  add_precision_option(*command, options->precision);
  command->footer(
      "Text streams as it is made; memory and time per token do not grow with its length.\n"
      "Example: carousel generate runs/quickstart --prompt \"And God said\" --tokens 500");
  command->callback([options] { run_generate(*options); });
}

}  // namespace carousel
