#include <string>

#include "layers/slstm/kernels.h"
#include "tests/bench/kernels/table.h"
#include "tests/support/backward_args.h"

namespace carousel::bench {
namespace {

struct Case {
  std::int64_t batch, time, heads, size;
  Inputs inputs = Inputs::kRandom;

  std::string name() const { return fmt::format("sLSTM B{} T{} {}x{}", batch, time, heads, size); }
  double flops() const {
    return 8.0 * static_cast<double>(batch * time * heads) * static_cast<double>(size * size);
  }
};

/// All tensors of a case on the GPU.
struct Call {
  slstm::CellForwardArgs forward;
  slstm::CellBackwardArgs backward;

  explicit Call(const Case& c) {
    const Shape tokens{c.batch, c.time, c.heads, c.size};
    const double std = c.inputs == Inputs::kExtremeGates ? 10.0 : 1.0;
    for (Tensor& x : forward.in.x) x = values(tokens, kBF16, 11, std);
    forward.in.r = values({c.heads, slstm::kNumGates, c.size, c.size}, kF32, 12,
                          0.5 / std::sqrt(static_cast<double>(c.size)));
    forward.in.b = values({slstm::kNumGates, c.heads, c.size}, kF32, 13);
    if (c.inputs == Inputs::kResets) forward.in.reset = resets_for(c.batch, c.time);
    forward.h = room(tokens, kBF16);
    forward.gates = room({c.time, c.batch, c.heads, slstm::kNumGates, c.size}, kF32);
    forward.states = room({c.time, c.batch, c.heads, 2, c.size}, kF32);
    forward.forget_slope = room({c.time, c.batch, c.heads, c.size}, kF32);
    backward = testing::backward_args(forward);
    backward.dh = values(tokens, kBF16, 14);
    for (Tensor& dx : backward.dx) dx = room(tokens, kBF16);
    backward.dr = values(forward.in.r.shape(), kF32, 15);
    backward.db = values(forward.in.b.shape(), kF32, 16);
  }
  void run_forward() const { slstm::cell_fwd(kGpu, forward); }
  void run() const {
    slstm::cell_fwd(kGpu, forward);
    slstm::cell_bwd(kGpu, backward);
  }
  double saved_bytes() const {
    return bytes_of({forward.gates, forward.states, forward.forget_slope});
  }
};

/// The same on the CPU in float64.
slstm::CellForwardArgs wide_forward(const slstm::CellForwardArgs& of) {
  const auto wide = [](const Tensor& t) {
    return Tensor::from<double>(testing::to_doubles(t), t.shape());
  };
  slstm::CellForwardArgs to;
  for (int g = 0; g < slstm::kNumGates; ++g) to.in.x[g] = wide(of.in.x[g]);
  to.in.r = wide(of.in.r);
  to.in.b = wide(of.in.b);
  if (of.in.reset.defined()) to.in.reset = of.in.reset.to(kCpu);
  to.h = empty_like(to.in.x[0]);
  to.gates = Tensor::empty(of.gates.shape(), DType::kF64, kCpu);
  to.states = Tensor::empty(of.states.shape(), DType::kF64, kCpu);
  to.forget_slope = Tensor::empty(of.forget_slope.shape(), DType::kF64, kCpu);
  return to;
}

void check(const Case& c) {
  const Call call(c);
  const slstm::CellBackwardArgs& got = call.backward;
  std::vector<Tensor> outputs{call.forward.h};
  outputs.insert(outputs.end(), std::begin(got.dx), std::end(got.dx));
  outputs.insert(outputs.end(), {got.dr, got.db});
  const bool same = repeats(
      [&] {
        Tensor(got.dr).zero_();
        Tensor(got.db).zero_();
        call.run();
      },
      outputs);
  const slstm::CellForwardArgs fwd = wide_forward(call.forward);
  slstm::cell_fwd(kCpu, fwd);
  slstm::CellBackwardArgs bwd = testing::backward_args(fwd);
  bwd.dh = Tensor::from<double>(testing::to_doubles(got.dh), got.dh.shape());
  std::vector<Tensor> wanted{fwd.h};
  for (Tensor& dx : bwd.dx) {
    dx = empty_like(fwd.h);
    wanted.push_back(dx);
  }
  bwd.dr = Tensor::zeros(got.dr.shape(), DType::kF64, kCpu);
  bwd.db = Tensor::zeros(got.db.shape(), DType::kF64, kCpu);
  wanted.insert(wanted.end(), {bwd.dr, bwd.db});
  slstm::cell_bwd(kCpu, bwd);
  std::printf("| %s |", accuracy_name(c).c_str());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    std::printf(" %.1e |", testing::relative_error(outputs[i], wanted[i]));
  }
  std::printf(" %s |\n", same ? "yes" : "NO");
  std::fflush(stdout);
}

}  // namespace

void slstm_lines(const Clock& clock, const Table& table) {
  const auto lines = [&](const Case& c, const std::string& peer, double to_reach,
                         const std::string& peer_both, double to_reach_both) {
    const Call call(c);
    const double one = bytes_of({call.forward.h});
    const double forward_bytes = 5 * one + call.saved_bytes();   // x; h
    const double backward_bytes = 6 * one + call.saved_bytes();  // h, dh; dx
    table.line(c.name() + " fw", clock.median_ms([&] { call.run_forward(); }), peer, to_reach,
               forward_bytes, c.flops());
    table.line(c.name() + " fw+bw", clock.median_ms([&] { call.run(); }), peer_both, to_reach_both,
               forward_bytes + backward_bytes, 3.0 * c.flops());
  };
  lines({16, 1024, 12, 64}, "2.10 (FlashRNN)", 1.3, "5.71 (FlashRNN)", 3.5);
  lines({16, 1024, 3, 256}, "13.1 (FlashRNN)", 2.0, "36.5 (FlashRNN)", 5.5);
  lines({16, 1024, 1, 768}, "4.9, cuDNN LSTM fp16 2.12", 2.5, "13.6, cuDNN LSTM fp16 7.00", 7.0);
}

void slstm_accuracy(std::string_view filter) {
  std::printf(
      "\n| relative L2 error in bf16 | h | dx i | dx f | dx z | dx o | dR | db | same bits twice "
      "|\n|---|---|---|---|---|---|---|---|---|\n");
  for (const Case& shape : {Case{2, 1024, 12, 64}, {2, 1024, 3, 256}, {2, 1024, 1, 768}}) {
    for (const Inputs inputs : kAllInputs) {
      Case c = shape;
      c.inputs = inputs;
      if (accuracy_name(c).find(filter) != std::string::npos) check(c);
    }
  }
}

}  // namespace carousel::bench
