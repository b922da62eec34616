#include "tests/bench/kernels/mlstm_case.h"

namespace carousel::bench {
namespace {

// One decoding step of the 7B model's heads reads and writes the state. A copy of as many bytes is
// timed beside it: what so little work costs on a cold L2.
void decoding_lines(const Clock& clock, const Rates& rates, const Table& table) {
  constexpr std::int64_t kHeads = 8, kDqk = 256, kDv = 512;
  for (const std::int64_t batch : {1, 32}) {
    mlstm::CellForwardArgs args;
    mlstm::CellInputs& in = args.in;
    in.q = values({batch, 1, kHeads, kDqk}, kBF16, 1);
    in.k = values({batch, 1, kHeads, kDqk}, kBF16, 2);
    in.v = values({batch, 1, kHeads, kDv}, kBF16, 3);
    in.i = values({batch, 1, kHeads}, kF32, 4);
    in.f = values({batch, 1, kHeads}, kF32, 5);
    in.c0 = values({batch, kHeads, kDqk, kDv}, kF32, 6);
    in.n0 = values({batch, kHeads, kDqk}, kF32, 7);
    in.m0 = values({batch, kHeads}, kF32, 8);
    args.h = empty_like(in.v);
    args.c_last = empty_like(in.c0);
    args.n_last = empty_like(in.n0);
    args.m_last = empty_like(in.m0);
    const double copy = clock.median_ms([&] { Tensor(args.c_last).copy_(in.c0); });
    const double ms = clock.median_ms(
        [&] { mlstm::cell_fwd[static_cast<int>(mlstm::Form::kRecurrent)](kGpu, args); });
    const double bytes = bytes_of({in.c0, args.c_last});
    table.line(fmt::format("decoding NH8 256/512, batch {}: {:.0f} % of the copy rate, {:.0f} % of "
                           "a copy of the state",
                           batch, 100.0 * bytes / rates.copy / ms, 100.0 * copy / ms),
               ms, "–", copy / 0.8, bytes, 0.0);
  }
}

}  // namespace

void mlstm_lines(const Clock& clock, const Rates& rates, const Table& table) {
  const auto forward = [&](const MlstmCase& c, const std::string& peer, double to_reach) {
    const MlstmCall call(c);
    table.line(c.name() + " fw", clock.median_ms([&] { call.run_forward(); }), peer, to_reach,
               c.forward_bytes(), c.forward_flops());
  };
  const auto both = [&](const MlstmCase& c, const std::string& peer, double to_reach) {
    const MlstmCall call(c);
    const double ms = clock.median_ms([&] { call.run(); });
    const char* const resets = c.inputs == Inputs::kResets ? ", resets" : "";
    table.line(c.name() + resets + " fw+bw", ms, peer, to_reach,
               c.forward_bytes() + c.backward_bytes(), c.forward_flops() + c.backward_flops());
    return ms;
  };
  const MlstmCase large{8, 8, 8192, 256, 512};
  const MlstmCase medium{8, 16, 8192, 128, 256};
  const MlstmCase small{16, 8, 2048, 128, 128};
  forward(large, "6.16 (TFLA), 4.25 (simple_gla)", 2.2);
  const double large_ms = both(large, "18.5 (TFLA), 17.5 (simple_gla)", 7.5);
  forward(medium, "3.20 (TFLA)", 1.5);
  both(medium, "10.1 (TFLA)", 4.5);
  forward(small, "0.60 (TFLA)", 0.25);
  both(small, "2.15 (TFLA)", 0.9);
  both({1, 8, 65536, 256, 512}, "17.0 (TFLA, sigmoid gate)", 1.3 * large_ms);
  both({32, 8, 2048, 256, 512}, "15.7 (FlashAttention-3)", 8.0);
  const double aligned_ms = both({8, 16, 2048, 128, 256}, "–", 4.5 / 4.0);
  both({8, 16, 2047, 96, 192, Inputs::kResets}, "unsupported", 1.5 * aligned_ms);
  // Head sizes of the block stack's models, which the Hopper kernels do not take.
  for (const std::int64_t size : {384, 512}) {
    forward({8, 4, 2048, size, size}, "–", 0.0);
    both({8, 4, 2048, size, size}, "–", 0.0);
  }
  decoding_lines(clock, rates, table);
}

// --- one head against float64 ------------------------------------------------------------------

namespace {

// Head (batch, head) of a (B, S, NH[, D]) tensor as float64 (1, S, 1[, D]) on the CPU.
Tensor head_of(const Tensor& t, std::int64_t batch, std::int64_t head) {
  const std::int64_t time = t.dim(1), heads = t.dim(2);
  const std::int64_t width = t.rank() == 4 ? t.dim(3) : 1;
  const std::vector<double> all = testing::to_doubles(t.slice(batch, batch + 1));
  std::vector<double> one(static_cast<std::size_t>(time * width));
  for (std::int64_t s = 0; s < time; ++s) {
    for (std::int64_t d = 0; d < width; ++d) {
      one[static_cast<std::size_t>(s * width + d)] =
          all[static_cast<std::size_t>((s * heads + head) * width + d)];
    }
  }
  return Tensor::from<double>(one, t.rank() == 4 ? Shape{1, time, 1, width} : Shape{1, time, 1});
}

void check(const MlstmCase& c) {
  const MlstmCall call(c);
  const mlstm::CellBackwardArgs& got = call.backward;
  const bool same =
      repeats([&] { call.run(); }, {call.forward.h, got.dq, got.dk, got.dv, got.di, got.df});
  const std::int64_t batch = c.batch - 1, head = c.heads - 1;
  const auto reference = [&](const Tensor& t) { return head_of(t, batch, head); };
  mlstm::CellForwardArgs fwd;
  const mlstm::CellInputs& in = call.forward.in;
  fwd.in = in;
  fwd.in.q = reference(in.q);
  fwd.in.k = reference(in.k);
  fwd.in.v = reference(in.v);
  fwd.in.i = reference(in.i);
  fwd.in.f = reference(in.f);
  fwd.in.chunk_size = 128;
  if (in.reset.defined()) fwd.in.reset = in.reset.slice(batch, batch + 1).to(kCpu);
  fwd.h = empty_like(fwd.in.v);
  fwd.normaliser = empty_like(fwd.in.i);
  fwd.denominator_sign = empty_like(fwd.in.i);
  fwd.stabiliser = empty_like(fwd.in.i);
  mlstm::cell_fwd[static_cast<int>(mlstm::Form::kChunkwise)](kCpu, fwd);
  mlstm::CellBackwardArgs bwd = testing::backward_args(fwd);
  bwd.dh = reference(got.dh);
  bwd.dq = empty_like(fwd.in.q);
  bwd.dk = empty_like(fwd.in.k);
  bwd.dv = empty_like(fwd.in.v);
  bwd.di = empty_like(fwd.in.i);
  bwd.df = empty_like(fwd.in.i);
  mlstm::cell_bwd[static_cast<int>(mlstm::Form::kChunkwise)](kCpu, bwd);
  const auto error = [&](const Tensor& ours, const Tensor& want) {
    return testing::relative_error(reference(ours), want);
  };
  std::printf("| %s | %.1e | %.1e | %.1e | %.1e | %.1e | %.1e | %s |\n", accuracy_name(c).c_str(),
              error(call.forward.h, fwd.h), error(got.dq, bwd.dq), error(got.dk, bwd.dk),
              error(got.dv, bwd.dv), error(got.di, bwd.di), error(got.df, bwd.df),
              same ? "yes" : "NO");
  std::fflush(stdout);
}

}  // namespace

void mlstm_accuracy(std::string_view filter) {
  std::printf("\n| relative L2 error in bf16 | h | dq | dk | dv | di | df | same bits twice |\n");
  std::printf("|---|---|---|---|---|---|---|---|\n");
  // The table's shapes with one sequence instead of a batch: sequences do not see each other.
  for (const MlstmCase& shape : {MlstmCase{1, 8, 8192, 256, 512},
                                 {1, 16, 8192, 128, 256},
                                 {1, 8, 2048, 128, 128},
                                 {1, 8, 65536, 256, 512},
                                 {1, 16, 2047, 96, 192}}) {
    for (const Inputs inputs : kAllInputs) {
      MlstmCase c = shape;
      c.inputs = inputs;
      if (accuracy_name(c).find(filter) != std::string::npos) check(c);
    }
  }
}

}  // namespace carousel::bench
