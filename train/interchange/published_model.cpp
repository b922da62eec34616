#include "train/interchange/published_model.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "layers/xlstm.h"
#include "layers/xlstm_large.h"

namespace carousel {
namespace {

// The feed-forward width of block 0, or nothing if neither layout's tensor is there, or it is no
// matrix with columns, which alone bound its rows by the file's size.
std::optional<std::int64_t> ffn_width(const ModelFiles& files) {
  const auto rows = [&](const std::string& name) -> std::int64_t {
    if (!files.contains(name)) return 0;
    const Shape& shape = files.info(name).shape;
    return shape.rank() == 2 && shape[1] > 0 ? shape[0] : 0;
  };
  const std::string ffn = "backbone.blocks.0.ffn.";
  const std::int64_t single = rows(ffn + "proj_up.weight");
  const std::int64_t width = single > 0 ? single : rows(ffn + "proj_up_gate_z.weight") / 2;
  return width > 0 ? std::optional(width) : std::nullopt;
}

// What the names and shapes of the tensors tell.
Layout detect_layout(const ModelFiles& files) {
  Layout layout;
  for (const std::string& name : files.names()) {
    if (name == "embedding.weight") layout.naming = Naming::kNxai;
    for (const char* fused : {".qkv_opreact.", ".ifgate_preact.", ".proj_up_gate_z."}) {
      if (name.find(fused) != std::string::npos) layout.mode = WeightMode::kFused;
    }
    if (name.ends_with("._recurrent_kernel_")) {
      const Shape& shape = files.info(name).shape;
      if (shape.rank() == 3 && shape[1] < shape[2]) layout.slstm = SlstmLayout::kCuda;
    }
  }
  return layout;
}

bool is_family_b(const ModelFiles& files) {
  return std::ranges::any_of(files.names(), [](const std::string& name) {
    return name.starts_with("xlstm_block_stack.");
  });
}

ModelConfig read_config(const ModelFiles& files) {
  const MappedFile file(files.directory() / "config.json", ExitCode::kCheckpoint);
  const std::string text(file.text());
  ModelConfig config;
  if (is_family_b(files)) {
    config.family = ModelFamily::kXlstm;
    config.xlstm = parse_xlstm_json(file.path(), text);
    config.vocab_size = config.xlstm.vocab_size;
  } else {
    config.xlstm_large = parse_hf_config(file.path(), text);
    const auto width = ffn_width(files);
    if (width) config.xlstm_large = with_ffn_width(config.xlstm_large, *width);
    config.vocab_size = config.xlstm_large.vocab_size;
  }
  return config;
}

void check_tensors(const ModelFiles& files, const std::vector<StackedTensor>& wanted,
                   bool tied_head) {
  std::string problems;
  std::set<std::string> known;
  for (const StackedTensor& t : wanted) {
    known.insert(t.name);
    if (!files.contains(t.name)) {
      problems += fmt::format("\n  missing: {} {}", t.name, t.shape);
      continue;
    }
    const TensorInfo& info = files.info(t.name);
    if (info.shape != t.shape) {
      problems += fmt::format("\n  {}: shape {}, expected {}", t.name, info.shape, t.shape);
    }
    if (!is_floating(info.dtype)) {
      problems += fmt::format("\n  {}: {} is not a floating dtype", t.name, name_of(info.dtype));
    }
  }
  if (tied_head) known.insert(kTiedHead);
  for (const std::string& name : files.names()) {
    if (!known.contains(name)) {
      problems += fmt::format("\n  unexpected: {} {}", name, files.info(name).shape);
    }
  }
  if (problems.empty()) return;
  throw CheckpointError("the tensors in '{}' are not those that its config.json describes:{}",
                        files.directory().string(), problems);
}

// Models with use_bias have them where others train them.
void refuse_norm_biases(const ModelFiles& files) {
  for (const std::string& name : files.names()) {
    if (!name.ends_with("norm.bias") && !name.ends_with("norm_mlstm.bias") &&
        !name.ends_with("norm_ffn.bias")) {
      continue;
    }
    throw CheckpointError(
        "'{}' holds '{}', but Carousel's norms have no biases: such a model, of use_bias: true, "
        "cannot be imported",
        files.directory().string(), name);
  }
}

void check_tied_head(const ModelFiles& files) {
  if (!files.contains(kTiedHead)) return;
  const TensorInfo& head = files.info(kTiedHead);
  const TensorInfo& embedding = files.info(kTiedEmbedding);
  bool equal = head.dtype == embedding.dtype && head.shape == embedding.shape;
  if (equal) {
    const Tensor a = files.load_as(kTiedHead, head.dtype);
    const Tensor b = files.load_as(kTiedEmbedding, head.dtype);
    equal = std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
  }
  if (!equal) {
    throw CheckpointError("'{}': tie_weights is true in config.json, but {} and {} differ",
                          files.directory().string(), kTiedHead, kTiedEmbedding);
  }
}

Tensor read_part(const ModelFiles& files, const StackedTensor& t, const Parameter& part,
                 std::int64_t row, DType dtype) {
  if (t.swap) return swap_axes(files.load_as(t.name, dtype), inverse(*t.swap), part.spec.shape);
  Tensor out = Tensor::empty(part.spec.shape, dtype);
  files.read_rows_into(t.name, row, out);
  return out;
}

}  // namespace

PublishedModel read_published_model(const ModelFiles& files) {
  PublishedModel out{.config = read_config(files)};
  const bool family_b = out.config.family == ModelFamily::kXlstm;
  if (family_b) {
    out.model = std::make_unique<Xlstm>(out.config.xlstm);
  } else {
    out.model = std::make_unique<XlstmLarge>(out.config.xlstm_large);
  }
  out.tensors = stack_parameters(out.model->parameters(), detect_layout(files));
  const bool tied = family_b && out.config.xlstm.tie_weights;
  refuse_norm_biases(files);
  check_tensors(files, out.tensors, tied);
  if (tied) check_tied_head(files);
  return out;
}

std::vector<TensorSource> parameter_sources(const ModelFiles& files,
                                            const PublishedModel& published, DType dtype) {
  std::map<const Parameter*, TensorSource> sources;
  for (const StackedTensor& t : published.tensors) {
    std::int64_t row = 0;
    for (const Parameter* part : t.parts) {
      sources[part] = {part->spec.name, dtype, part->spec.shape, [&files, &t, part, row, dtype] {
                         return read_part(files, t, *part, row, dtype);
                       }};
      row += part->spec.shape[0];
    }
  }
  std::vector<TensorSource> out;
  for (const Parameter& p : published.model->parameters().all()) out.push_back(sources.at(&p));
  return out;
}

std::string published_config(const ModelConfig& config, DType dtype, const Layout& layout) {
  if (config.family == ModelFamily::kXlstm) {
    XlstmConfig c = config.xlstm;
    c.vocab_size = config.vocab_size.value_or(c.vocab_size);
    return xlstm_json(c, layout.slstm);
  }
  XlstmLargeConfig c = config.xlstm_large;
  c.vocab_size = config.vocab_size.value_or(c.vocab_size);
  return hf_config_json(c, dtype, layout.mode);
}

}  // namespace carousel
