// Times every CUDA kernel on a cold L2 against its floor: the bytes it must move over the copy
// rate, or its FLOPs over the matrix rate, both measured in the same run. Prints a Markdown table.
// Usage: kernels_cuda [substring of a kernel's name]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "core/kernels/activation.h"
#include "core/kernels/conv.h"
#include "core/kernels/cross_entropy.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/embedding.h"
#include "core/kernels/headwise.h"
#include "core/kernels/matmul.h"
#include "core/kernels/norm.h"
#include "core/kernels/optimizer.h"
#include "core/kernels/register.h"
#include "layers/register.h"
#include "tests/bench/kernels/rig.h"

namespace carousel {
namespace {

using bench::bytes_of;
using bench::kBF16;
using bench::kF32;
using bench::kGpu;
using bench::room;

Tensor values(const Shape& shape, DType dtype, double std = 1.0, double mean = 0.0) {
  return bench::values(shape, dtype, 1, std, mean);
}

class Table {
 public:
  explicit Table(std::string filter) : filter_(std::move(filter)) {
    std::printf(
        "%s\n\ncopy rate %.2f TB/s (read + written), bf16 matrix rate %.0f TFLOP/s (8192^3)\n\n",
        cuda_status().c_str(), rates_.copy * 1e-9, rates_.matrix * 1e-9);
    std::printf("| kernel | shape | us | floor us | of floor |\n|---|---|---|---|---|\n");
  }

  bool wants(const std::string& name) const { return name.find(filter_) != std::string::npos; }

  // `flops` are matrix FLOPs in bf16.
  void row(const std::string& name, const std::string& shape, double bytes, double flops,
           const std::function<void()>& work) const {
    if (!wants(name)) return;
    const double ms = clock_.median_ms(work);
    const double floor = rates_.floor_ms(bytes, flops);
    std::printf("| %s | %s | %.1f | %.1f | %.0f %% |\n", name.c_str(), shape.c_str(), 1e3 * ms,
                1e3 * floor, 100.0 * floor / ms);
    std::fflush(stdout);
  }

 private:
  std::string filter_;
  bench::Clock clock_;
  bench::Rates rates_{clock_};
};

// Shapes of a 400M model: 8 sequences of 2048 tokens, width 1024, vocabulary 50304.
constexpr std::int64_t kTokens = 16384;
constexpr std::int64_t kWidth = 1024;
constexpr std::int64_t kHidden = 2752;
constexpr std::int64_t kVocabulary = 50304;

void elementwise(const Table& table) {
  const Tensor a = values({kTokens, kHidden}, kBF16);
  const Tensor b = values({kTokens, kHidden}, kBF16);
  const Tensor c = values({kTokens, kHidden}, kBF16);
  const Tensor out = room({kTokens, kHidden}, kBF16);
  const Tensor out2 = room({kTokens, kHidden}, kBF16);
  const Tensor wide = values({kTokens, kHidden}, kF32);
  const std::string shape = "16384 x 2752";
  table.row("add_fwd", shape, bytes_of({a, b, out}), 0, [&] { add_fwd(kGpu, {a, b, out}); });
  table.row("scale", shape, bytes_of({a, out}), 0, [&] { scale(kGpu, {a, out, 1.5}); });
  table.row("cast f32 to bf16", shape, bytes_of({wide, out}), 0, [&] { cast(kGpu, {wide, out}); });
  table.row("accumulate bf16 into f32", shape, bytes_of({a, wide, wide}), 0, [&] {
    accumulate(kGpu, {a, wide});
  });
  table.row("dropout", shape, bytes_of({a, out}), 0, [&] {
    dropout(kGpu, {a, out, 0.1, {1, 2, 3}});
  });
  table.row("soft_cap_fwd", shape, bytes_of({a, out}), 0, [&] {
    soft_cap_fwd(kGpu, {a, out, 15.0});
  });
  table.row("soft_cap_bwd", shape, bytes_of({a, b, out}), 0, [&] {
    soft_cap_bwd(kGpu, {a, b, out, 15.0});
  });
  for (const auto& [name, phi] :
       {std::pair{"silu", Activation::kSilu}, {"gelu", Activation::kGelu}}) {
    table.row(fmt::format("gated_fwd {}", name), shape, bytes_of({a, b, out}), 0, [&] {
      gated_fwd(kGpu, {a, b, out, phi});
    });
    table.row(fmt::format("gated_bwd {}", name), shape, bytes_of({a, b, c, out, out2}), 0, [&] {
      gated_bwd(kGpu, {a, b, c, out, out2, phi});
    });
  }
  table.row("column_sum", shape, bytes_of({a}), 0, [&] {
    column_sum(kGpu, {a, wide.range(0, {kHidden})});
  });
  table.row("copy_columns", "1376 of 2752", bytes_of({out}), 0, [&] {
    copy_columns(kGpu, {a, out, 0, kHidden / 2, kHidden / 2});
  });
}

void matmuls(const Table& table) {
  const Tensor x = values({kTokens, kWidth}, kBF16);
  const Tensor w = values({kHidden, kWidth}, kBF16);
  const Tensor bias = values({kHidden}, kBF16);
  const Tensor y = room({kTokens, kHidden}, kBF16);
  const Tensor dw = values({kHidden, kWidth}, kF32);
  const double flops = 2.0 * kTokens * kWidth * kHidden;
  const std::string shape = "16384 x 2752 x 1024";
  table.row("matmul x·Wᵀ + b", shape, bytes_of({x, w, y}), flops,
            [&] { matmul(kGpu, {.a = x, .b = w, .bias = bias, .out = y, .transpose_b = true}); });
  table.row("matmul dy·W", shape, bytes_of({x, w, y}), flops,
            [&] { matmul(kGpu, {.a = y, .b = w, .out = x}); });
  table.row("matmul dW += dyᵀ·x", shape, bytes_of({x, y, dw, dw}), flops, [&] {
    matmul(kGpu, {.a = y, .b = x, .out = dw, .transpose_a = true, .accumulate = true});
  });
}

void norms(const Table& table) {
  const auto both = [&](const std::string& name, std::int64_t rows, std::int64_t columns,
                        std::int64_t groups, NormKind kind, bool residual, bool gated) {
    const Shape shape{rows, columns};
    const Tensor x = values(shape, kBF16);
    const Tensor r = residual ? values(shape, kBF16) : Tensor{};
    const Tensor g = gated ? values(shape, kBF16) : Tensor{};
    const Tensor w = values({groups * columns}, kBF16);
    const Tensor sum = residual ? room(shape, kBF16) : Tensor{};
    const Tensor out = room(shape, kBF16);
    const Tensor mean = kind == NormKind::kLayer ? room({rows}, kF32) : Tensor{};
    const Tensor rstd = room({rows}, kF32);
    const Tensor dgate = gated ? room(shape, kBF16) : Tensor{};
    const Tensor dweight = values({groups * columns}, kF32);
    const NormOptions options{kind, false, 1e-6};
    const double one = bytes_of({x});
    const std::string size = fmt::format("{} x {}", rows, columns);
    table.row("norm_fwd " + name, size, (2 + 2 * residual + gated) * one, 0, [&] {
      norm_fwd(kGpu, {options, x, r, w, g, sum, out, mean, rstd});
    });
    table.row("norm_bwd " + name, size, (3 + residual + 2 * gated) * one, 0, [&] {
      norm_bwd(kGpu, {.options = options,
                      .x = x,
                      .weight = w,
                      .gate = g,
                      .mean = mean,
                      .rstd = rstd,
                      .dout = out,
                      .dsum = r,
                      .dx = room(shape, kBF16),
                      .dgate = dgate,
                      .dweight = dweight});
    });
  };
  both("rms", kTokens, kWidth, 1, NormKind::kRms, false, false);
  both("rms + residual", kTokens, kWidth, 1, NormKind::kRms, true, false);
  both("rms + residual", kTokens, 4096, 1, NormKind::kRms, true, false);
  both("layer, 4 heads, gate", 4 * kTokens, 256, 4, NormKind::kLayer, false, true);
  both("layer, 4 heads, gate", 4 * kTokens, 512, 4, NormKind::kLayer, false, true);
}

void tokens(const Table& table) {
  if (!table.wants("embedding") && !table.wants("cross_entropy")) return;
  std::vector<std::int32_t> ids(kTokens);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    // Zipf's law: ranks are e^{u·ln V}.
    const double u = philox_uniform({1, 2, 3}, i);
    ids[i] = static_cast<std::int32_t>(std::pow(static_cast<double>(kVocabulary), u)) - 1;
  }
  const Tensor id = Tensor::from<std::int32_t>(ids, {kTokens}, kGpu);
  const Tensor weight = values({kVocabulary, kWidth}, kBF16);
  const Tensor out = room({kTokens, kWidth}, kBF16);
  const Tensor dweight = values({kVocabulary, kWidth}, kF32);
  std::sort(ids.begin(), ids.end());
  const auto distinct = static_cast<double>(std::unique(ids.begin(), ids.end()) - ids.begin());
  table.row("embedding_fwd", "16384 x 1024", bytes_of({out, out}), 0, [&] {
    embedding_fwd(kGpu, {id, weight, out});
  });
  table.row("embedding_bwd", "16384 x 1024, Zipf", bytes_of({out}) + distinct * kWidth * 8, 0, [&] {
    embedding_bwd(kGpu, {id, out, dweight});
  });
  constexpr std::int64_t kRows = 4096;
  const Tensor logits = values({kRows, kVocabulary}, kBF16, 3.0);
  const Tensor dlogits = room({kRows, kVocabulary}, kBF16);
  const Tensor loss = room({kRows}, kF32);
  const Tensor lse = room({kRows}, kF32);
  const Tensor dloss = values({kRows}, kF32);
  const Tensor target = id.range(0, {kRows});
  for (const double cap : {0.0, 30.0}) {
    const std::string name = cap > 0 ? " with cap" : "";
    table.row("cross_entropy_fwd" + name, "4096 x 50304", bytes_of({logits}), 0, [&] {
      cross_entropy_fwd(kGpu, {logits, target, loss, lse, {}, cap});
    });
    table.row("cross_entropy_bwd" + name, "4096 x 50304", bytes_of({logits, dlogits}), 0, [&] {
      cross_entropy_bwd(kGpu, {logits, target, lse, dloss, dlogits, cap});
    });
  }
}

void mixers(const Table& table) {
  constexpr std::int64_t kInner = 2048;
  const Shape sequence{8, 2048, kInner};
  const Shape flat{kTokens, kInner};
  const Tensor x = values(sequence, kBF16);
  const Tensor y = room(sequence, kBF16);
  const Tensor dx = room(sequence, kBF16);
  const Tensor taps = values({kInner, 4}, kBF16);
  const Tensor bias = values({kInner}, kBF16);
  const Tensor dtaps = values({kInner, 4}, kF32);
  const Tensor dbias = values({kInner}, kF32);
  const double one = bytes_of({x});
  table.row("conv_silu_fwd", "8 x 2048 x 2048, 4 taps", 2 * one, 0,
            [&] { conv_silu_fwd(kGpu, {.x = x, .weight = taps, .bias = bias, .y = y}); });
  table.row("conv_silu_bwd", "8 x 2048 x 2048, 4 taps", 3 * one, 0, [&] {
    conv_silu_bwd(kGpu, {.x = x,
                         .weight = taps,
                         .bias = bias,
                         .dy = y,
                         .dx = dx,
                         .dweight = dtaps,
                         .dbias = dbias});
  });
  const auto flattened = [&](const Tensor& t) { return t.reshape(flat); };
  for (const std::int64_t block : {4, 8, 256}) {
    const Tensor w = values({kInner / block, block, block}, kBF16);
    const Tensor dw = values({kInner / block, block, block}, kF32);
    const double flops = 2.0 * kTokens * kInner * static_cast<double>(block);
    const std::string shape = fmt::format("16384 x {} heads of {}", kInner / block, block);
    table.row("headwise_fwd", shape, 2 * one, flops, [&] {
      headwise_fwd(kGpu, {flattened(x), w, flattened(y)});
    });
    table.row("headwise_bwd", shape, 3 * one, 2 * flops, [&] {
      headwise_bwd(kGpu, {flattened(x), w, flattened(y), flattened(dx), dw});
    });
  }
  table.row("skip_fwd", "16384 x 2048", 3 * one, 0, [&] {
    skip_fwd(kGpu, {flattened(x), bias, flattened(y), flattened(dx)});
  });
  table.row("skip_bwd", "16384 x 2048", 3 * one, 0, [&] {
    skip_bwd(kGpu, {flattened(x), bias, flattened(y), flattened(dx), dbias});
  });
}

void optimizer(const Table& table) {
  if (!table.wants("adamw") && !table.wants("sum_of_squares")) return;
  constexpr std::int64_t kN = 100'000'000;
  const Tensor master = values({kN}, kF32);
  const Tensor grad = values({kN}, kF32);
  const Tensor m = values({kN}, kF32);
  const Tensor v = values({kN}, kF32, 0.01, 1.0);
  const Tensor compute = room({kN}, kBF16);
  const Tensor norm2 = room({}, DType::kF64);
  std::vector<AdamWSegment> segments;
  for (std::int64_t begin = 0; begin < kN; begin += 1 << 20) {
    segments.push_back({begin, std::min(kN, begin + (1 << 20)), 0.1});
  }
  table.row("sum_of_squares", "100M", bytes_of({grad}), 0, [&] {
    sum_of_squares(kGpu, {grad, norm2});
  });
  table.row("adamw", "100M, 96 segments", bytes_of({master, master, m, m, v, v, grad, compute}), 0,
            [&] {
              adamw(kGpu, {.master = master,
                           .grad = grad,
                           .m = m,
                           .v = v,
                           .compute = compute,
                           .segments = segments,
                           .grad_norm2 = norm2,
                           .clip = 1.0,
                           .lr = 1e-3});
            });
}

void run(const std::string& filter) {
  const Table table(filter);
  elementwise(table);
  matmuls(table);
  norms(table);
  tokens(table);
  mixers(table);
  optimizer(table);
}

}  // namespace
}  // namespace carousel

int main(int argc, char** argv) {
  carousel::register_cuda_kernels();
  carousel::register_layer_cuda_kernels();
  if (!carousel::has_backend(carousel::DeviceType::kCuda)) {
    std::fprintf(stderr, "%s\n", carousel::cuda_status().c_str());
    return 2;
  }
  try {
    carousel::run(argc > 1 ? argv[1] : "");
  } catch (const carousel::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return static_cast<int>(e.code());
  }
  return 0;
}
