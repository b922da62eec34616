#include "train/run_directory.h"

#include <nlohmann/json.hpp>

#include "core/kernels/matmul.h"
#include "train/checkpoint/directory.h"
#include "train/model_factory.h"
#include "train/weights.h"

namespace carousel {

bool is_checkpoint(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::exists(path / Manifest::kFileName, error)) return true;
  const auto place = std::filesystem::canonical(path, error);  // "." and links have a name, too
  return !error && checkpoint_step(place.filename().string());
}

Checkpoint open_checkpoint(const std::filesystem::path& path) {
  if (is_checkpoint(path)) return Checkpoint::open(path);
  auto newest = newest_good_checkpoint(path / "checkpoints");
  if (!newest) {
    throw CheckpointError(
        "'{}' holds no good checkpoint; give a run directory (runs/NAME) or one of its "
        "checkpoints/step-… directories",
        path.string());
  }
  return std::move(*newest);
}

TrainedModel load_trained_model(const std::filesystem::path& path, DeviceChoice device,
                                std::optional<DType> precision) {
  const Checkpoint checkpoint = open_checkpoint(path);
  // A name that ends with a slash, or is relative to the directory, has no such parents.
  const auto run = std::filesystem::canonical(checkpoint.path()).parent_path().parent_path();
  TrainedModel out;
  out.config = load_config((run / "config.yaml").string(), {});
  out.tokenizer = checkpoint_tokenizer(checkpoint);
  if (out.tokenizer == nullptr) {
    throw CheckpointError("'{}' holds no tokenizer.json, so its tokens have no meaning",
                          checkpoint.path().string());
  }
  out.model = make_model(out.config.model, out.tokenizer->vocab_size());
  allow_tf32 = out.config.tf32;
  out.model->parameters().materialise_for_inference(choose_device(device),
                                                    precision.value_or(out.config.precision));
  load_weights(checkpoint.model(), out.model->parameters());
  out.checkpoint = checkpoint.path();
  out.step = checkpoint.step();
  return out;
}

}  // namespace carousel
