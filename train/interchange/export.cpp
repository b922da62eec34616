#include "train/interchange/export.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/log.h"
#include "layers/xlstm_large.h"
#include "train/interchange/published_model.h"

namespace carousel {
namespace fs = std::filesystem;
namespace {

using Shard = std::vector<StackedTensor>;

void make_empty_directory(const fs::path& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) {
    throw CheckpointError("{}", io_error("create the directory", directory, error.value()));
  }
  if (!fs::is_empty(directory, error)) {
    throw UsageError("'{}' is not empty; give a new directory", directory.string());
  }
}

std::uint64_t bytes_of(const StackedTensor& t, DType dtype) {
  return static_cast<std::uint64_t>(t.shape.numel()) * size_of(dtype);
}

std::vector<Shard> split(std::vector<StackedTensor> tensors, const ExportOptions& options) {
  std::vector<Shard> shards(1);
  std::uint64_t used = 0;
  for (StackedTensor& t : tensors) {
    const std::uint64_t bytes = bytes_of(t, options.dtype);
    if (!shards.back().empty() && used + bytes > options.shard_bytes) {
      shards.emplace_back();
      used = 0;
    }
    used += bytes;
    shards.back().push_back(std::move(t));
  }
  return shards;
}

// float16 alone has a range that weights may leave.
void check_range(const std::string& name, const Tensor& t) {
  const auto* values = t.data<float16>();
  const bool overflow = std::any_of(values, values + t.numel(),
                                    [](float16 x) { return (x.bits & 0x7fffu) == 0x7c00u; });
  if (overflow) {
    throw CheckpointError("tensor '{}' has values beyond the range of float16; export as bf16",
                          name);
  }
}

Tensor stack(const ModelFiles& files, const StackedTensor& t, DType dtype) {
  Tensor whole;
  if (t.swap) {
    const Tensor part = files.load_as(t.parts.front()->spec.name, dtype);
    whole = swap_axes(part, *t.swap, t.shape);
  } else {
    whole = Tensor::empty(t.shape, dtype);
    std::int64_t row = 0;
    for (const Parameter* part : t.parts) {
      Tensor rows = whole.slice(row, row + part->spec.shape[0]);
      files.read_into(part->spec.name, rows);
      row += part->spec.shape[0];
    }
  }
  if (dtype == DType::kF16) check_range(t.name, whole);
  return whole;
}

void write_shards(const ModelFiles& files, const std::vector<Shard>& shards,
                  const fs::path& directory, DType dtype) {
  nlohmann::ordered_json weight_map;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        shards.size() == 1 ? ModelFiles::kSingleFile
                           : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    std::vector<TensorSource> tensors;
    for (const StackedTensor& t : shards[i]) {
      tensors.push_back(
          {t.name, dtype, t.shape, [&files, &t, dtype] { return stack(files, t, dtype); }});
      weight_map[t.name] = name;
      total += bytes_of(t, dtype);
    }
    stream_safetensors(directory / name, tensors, {{"format", "pt"}});
  }
  if (shards.size() == 1) return;
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}},
                                        {"weight_map", weight_map}};
  replace_file(directory / ModelFiles::kIndexFile,
               [&](OutputFile& file) { file.write(index.dump(2) + "\n"); });
}

// What the model's readers cannot do is refused, what they do in another way is told.
void check_readers(const XlstmLargeConfig& c, const ExportOptions& options) {
  if (!c.add_out_norm && options.layout.naming == Naming::kHf) {
    throw UsageError(
        "the model has no norm before its logits (add_out_norm: false), but transformers always "
        "takes one; export it for the NX-AI package with --naming nxai");
  }
  if (c.gate_soft_cap == 0.0 && options.dtype == DType::kF16) {
    throw UsageError(
        "the gates have no cap (gate_soft_cap: 0), which transformers can compute in f32 and bf16 "
        "only; choose one of these with --dtype");
  }
  if (c.use_bias) {
    log::warn(
        "Carousel's norms have no biases: transformers tells that they are missing and takes "
        "zeros, "
        "which is right; load_state_dict() needs strict=False");
  }
  if (!fits_hf_cache(c) && options.layout.naming == Naming::kHf) {
    log::warn(
        "query, key and value widths of {} and {} are no multiples of 64, so transformers' cache "
        "does not fit: config.json says use_cache: false, and generate() there reads the whole "
        "text again for each token",
        qk_dim(c), v_dim(c));
  }
}

}  // namespace

void export_model(const Checkpoint& checkpoint, const fs::path& directory,
                  const ExportOptions& options) {
  if (checkpoint.config_json().empty()) {
    throw CheckpointError("checkpoint '{}' has no config.json, so it cannot be exported",
                          checkpoint.path().string());
  }
  const ModelFiles files = ModelFiles::open(checkpoint.path());
  const PublishedModel published = read_published_model(files);
  const bool family_b = published.config.family == ModelFamily::kXlstm;
  if (family_b && options.layout.mode == WeightMode::kFused) {
    throw UsageError("models of family xlstm have no fused weights; leave out --weight-mode");
  }
  if (!family_b) check_readers(published.config.xlstm_large, options);
  make_empty_directory(directory);
  const ParameterSet& parameters = published.model->parameters();
  std::vector<StackedTensor> tensors = stack_parameters(parameters, options.layout);
  if (family_b && published.config.xlstm.tie_weights) {
    const auto embedding =
        std::ranges::find(tensors, std::string_view(kTiedEmbedding), &StackedTensor::name);
    StackedTensor head = *embedding;
    head.name = kTiedHead;
    tensors.push_back(std::move(head));
  }
  const auto shards = split(std::move(tensors), options);
  write_shards(files, shards, directory, options.dtype);
  replace_file(directory / "config.json", [&](OutputFile& file) {
    file.write(published_config(published.config, options.dtype, options.layout));
  });
  log::info("exported {} parameters as {} to '{}' ({} file(s))", parameters.count(),
            name_of(options.dtype), directory.string(), shards.size());
}

}  // namespace carousel
