// Times the mLSTM cell's CUDA kernels on a cold L2 against their floors, which count the bytes that
// any version must move and the FLOPs of the chunkwise form at 128 tokens a chunk, over the copy
// and matrix rates measured in the same run; then checks one head of each shape against the CPU's
// float64 kernels. Prints Markdown tables. Usage: mlstm_cuda [substring of a shape] [--no-check]
// [--parts]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/cuda/dispatch.h"
#include "core/cuda/error.h"
#include "core/cuda/stream.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/matmul.h"
#include "core/kernels/register.h"
#include "layers/mlstm/cuda/call.h"
#include "layers/mlstm/cuda/hopper_grads.h"
#include "layers/mlstm/cuda/hopper_walk.h"
#include "layers/mlstm/kernels.h"
#include "layers/register.h"
#include "tests/support/random.h"

namespace carousel {
namespace {

using mlstm::CellBackwardArgs;
using mlstm::CellForwardArgs;
using mlstm::Form;

constexpr Device kGpu{DeviceType::kCuda, 0};
constexpr DType kF32 = DType::kF32;
constexpr DType kBF16 = DType::kBF16;
constexpr int kRuns = 11;

// Normal values, repeated with a period that divides no size: zeros would be faster than real data.
Tensor values(const Shape& shape, DType dtype, std::uint64_t seed, double std = 1.0,
              double mean = 0.0) {
  constexpr std::int64_t kPeriod = (1 << 20) + 8 * 13;
  const Tensor normal = testing::random_normal<float>({kPeriod}, seed, std, mean).to(kGpu);
  Tensor period = Tensor::empty({kPeriod}, dtype, kGpu);
  cast(kGpu, {normal, period});
  Tensor t = Tensor::empty(shape, dtype, kGpu);
  for (std::int64_t i = 0; i < t.numel(); i += kPeriod) {
    const Shape n{std::min(kPeriod, t.numel() - i)};
    t.range(i, n).copy_(period.range(0, n));
  }
  return t;
}
Tensor room(const Shape& shape, DType dtype) { return Tensor::empty(shape, dtype, kGpu); }

class Clock {
 public:
  Clock() : stream_(kGpu), flush_(room({256 << 20}, DType::kU8)) {
    CUDA_CHECK(cudaEventCreate(&begin_));
    CUDA_CHECK(cudaEventCreate(&end_));
  }
  ~Clock() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

  /// Median of kRuns after one to warm up, each on a cold L2.
  double median_ms(const std::function<void()>& work) {
    work();
    std::vector<float> times(kRuns);
    for (float& ms : times) {
      flush_.zero_();
      CUDA_CHECK(cudaEventRecord(begin_, stream_.handle()));
      work();
      CUDA_CHECK(cudaEventRecord(end_, stream_.handle()));
      CUDA_CHECK(cudaEventSynchronize(end_));
      CUDA_CHECK(cudaEventElapsedTime(&ms, begin_, end_));
    }
    std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
    return times[kRuns / 2];
  }

 private:
  cuda::Stream stream_;
  Tensor flush_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

struct Rates {
  double copy = 0.0;    // bytes a millisecond, read and written
  double matrix = 0.0;  // bf16 FLOPs a millisecond

  explicit Rates(Clock& clock) {
    const Tensor from = values({1 << 28}, kF32, 1);
    const Tensor to = room({1 << 28}, kF32);
    copy =
        2.0 * static_cast<double>(from.bytes()) / clock.median_ms([&] { Tensor(to).copy_(from); });
    constexpr std::int64_t kN = 8192;
    const Tensor a = values({kN, kN}, kBF16, 2);
    const Tensor b = values({kN, kN}, kBF16, 3);
    const Tensor c = room({kN, kN}, kBF16);
    try {
      matrix = 2.0 * std::pow(kN, 3) /
               clock.median_ms([&] { matmul(kGpu, {.a = a, .b = b, .out = c}); });
    } catch (const Error&) {
      matrix = 750e9;  // no matmul in this build
    }
  }
};

struct Case {
  std::int64_t batch, heads, time, dqk, dv;
  mlstm::InputGate gate = mlstm::InputGate::kExponential;
  bool resets = false;

  std::string name() const {
    return fmt::format("B{} NH{} S{} {}/{}{}{}", batch, heads, time, dqk, dv,
                       gate == mlstm::InputGate::kSigmoid ? " sigmoid" : "",
                       resets ? " resets" : "");
  }
  double tokens() const { return static_cast<double>(batch * heads * time); }
  double forward_bytes() const { return tokens() * 2.0 * static_cast<double>(2 * dqk + 2 * dv); }
  double backward_bytes() const {
    return tokens() * 2.0 * static_cast<double>(4 * dqk + 4 * dv);  // q, k, v, h, dh; dq, dk, dv
  }
  double forward_flops() const {
    return tokens() * static_cast<double>(4 * dqk * dv + 128 * (dqk + dv));
  }
  double backward_flops() const {
    return tokens() * static_cast<double>(8 * dqk * dv + 128 * (3 * dqk + 2 * dv));
  }
};

// All tensors of a case. The forget gate's mean of 4 gives memories of some fifty tokens.
struct Call {
  CellForwardArgs forward;
  CellBackwardArgs backward;

  explicit Call(const Case& c) {
    const Shape qk{c.batch, c.time, c.heads, c.dqk};
    const Shape vh{c.batch, c.time, c.heads, c.dv};
    const Shape gates{c.batch, c.time, c.heads};
    mlstm::CellInputs& in = forward.in;
    in.q = values(qk, kBF16, 11);
    in.k = values(qk, kBF16, 12);
    in.v = values(vh, kBF16, 13);
    in.i = values(gates, kF32, 14);
    in.f = values(gates, kF32, 15, 2.0, 4.0);
    in.gate = c.gate;
    if (c.resets) {
      std::vector<std::uint8_t> reset(static_cast<std::size_t>(c.batch * c.time));
      for (std::size_t t = 0; t < reset.size(); t += 701) reset[t] = 1;
      in.reset = Tensor::from<std::uint8_t>(reset, {c.batch, c.time}, kGpu);
    }
    forward.h = room(vh, kBF16);
    forward.normaliser = room(gates, kF32);
    forward.denominator_sign = room(gates, kF32);
    forward.stabiliser = room(gates, kF32);
    const mlstm::SavedStates saved = saved_states(in);
    const std::int64_t chunks = (c.time + saved.chunk_size - 1) / saved.chunk_size;
    forward.c_chunks = room({c.batch, c.heads, chunks, c.dqk, c.dv}, saved.dtype);
    forward.n_chunks = room({c.batch, c.heads, chunks, c.dqk}, kF32);
    backward.in = in;
    backward.h = forward.h;
    backward.normaliser = forward.normaliser;
    backward.denominator_sign = forward.denominator_sign;
    backward.stabiliser = forward.stabiliser;
    backward.c_chunks = forward.c_chunks;
    backward.n_chunks = forward.n_chunks;
    backward.dh = values(vh, kBF16, 16);
    backward.dq = room(qk, kBF16);
    backward.dk = room(qk, kBF16);
    backward.dv = room(vh, kBF16);
    backward.di = room(gates, kF32);
    backward.df = room(gates, kF32);
  }
  void run_forward() const { mlstm::cell_fwd[static_cast<int>(Form::kChunkwise)](kGpu, forward); }
  void run_backward() const { mlstm::cell_bwd[static_cast<int>(Form::kChunkwise)](kGpu, backward); }
};

// --- one head against float64 ------------------------------------------------------------------

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

void check(const Case& c, const Call& call) {
  const std::int64_t batch = c.batch - 1, head = c.heads - 1;
  const auto reference = [&](const Tensor& t) { return head_of(t, batch, head); };
  CellForwardArgs fwd;
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
  mlstm::cell_fwd[static_cast<int>(Form::kChunkwise)](kCpu, fwd);
  CellBackwardArgs bwd;
  bwd.in = fwd.in;
  bwd.h = fwd.h;
  bwd.normaliser = fwd.normaliser;
  bwd.denominator_sign = fwd.denominator_sign;
  bwd.stabiliser = fwd.stabiliser;
  bwd.dh = reference(call.backward.dh);
  bwd.dq = empty_like(fwd.in.q);
  bwd.dk = empty_like(fwd.in.k);
  bwd.dv = empty_like(fwd.in.v);
  bwd.di = empty_like(fwd.in.i);
  bwd.df = empty_like(fwd.in.i);
  mlstm::cell_bwd[static_cast<int>(Form::kChunkwise)](kCpu, bwd);
  const auto error = [&](const Tensor& got, const Tensor& want) {
    return testing::relative_error(reference(got), want);
  };
  std::printf("| %s | %.1e | %.1e | %.1e | %.1e | %.1e | %.1e |\n", c.name().c_str(),
              error(call.forward.h, fwd.h), error(call.backward.dq, bwd.dq),
              error(call.backward.dk, bwd.dk), error(call.backward.dv, bwd.dv),
              error(call.backward.di, bwd.di), error(call.backward.df, bwd.df));
  std::fflush(stdout);
}

// --- the parts of the Hopper path --------------------------------------------------------------

void time_parts(Clock& clock, const Case& c, const Call& call) {
  using namespace mlstm::cuda;  // NOLINT: this function is about their kernels
  using T = __nv_bfloat16;
  const mlstm::CellInputs& in = call.forward.in;
  const cuda::Stream stream(kGpu);
  const Problem p = problem_of(in);
  if (!uses_hopper(stream, in, {})) return;
  const WalkPlan plan = plan_walk(p, stream.info().multiprocessors);
  const std::int64_t blocks = static_cast<std::int64_t>(p.units()) * p.blocks;
  const Tensor summary = workspace<float2>(kGpu, blocks);
  const Tensor gates = workspace<GateBlock>(kGpu, blocks);
  const Tensor grads = workspace<GradBlock>(kGpu, blocks);
  const Tensor scratch =
      workspace<std::uint8_t>(kGpu, static_cast<std::int64_t>(walk_scratch_bytes(p, plan)));
  const Tensor dc = empty_like(call.forward.c_chunks);
  const Tensor dn = empty_like(call.forward.n_chunks);
  const Tensor sums = room({4, p.units(), p.padded_time()}, kF32);
  const Tensor passing = room({p.units(), p.chunks()}, kF32);
  const std::int64_t part = static_cast<std::int64_t>(p.units()) * p.padded_time();
  const CellBackwardArgs& b = call.backward;
  const auto gate = [&] {
    launch_gates(stream, p, gate_inputs(in),
                 {.summary = pointer<float2>(summary), .blocks = pointer<GateBlock>(gates)});
  };
  const auto delta = [&] {
    launch_delta<T>(stream, p,
                    {.dh = data<T>(b.dh),
                     .h = data<T>(b.h),
                     .normaliser = data<float>(b.normaliser),
                     .sign = data<float>(b.denominator_sign),
                     .blocks = pointer<GradBlock>(grads)});
  };
  const auto walk = [&](bool out, bool states) {
    launch_walk_fwd(stream, p, plan,
                    {.rows = data<T>(in.q),
                     .columns = data<T>(in.k),
                     .values = data<T>(in.v),
                     .out = out ? data<T>(call.forward.h) : nullptr,
                     .gates = pointer<GateBlock>(gates),
                     .normaliser = data<float>(call.forward.normaliser),
                     .sign = data<float>(call.forward.denominator_sign),
                     .eps = 1e-6f,
                     .states = states ? data<T>(call.forward.c_chunks) : nullptr,
                     .state_n = states ? data<float>(call.forward.n_chunks) : nullptr},
                    pointer<void>(scratch));
  };
  const auto walk_back = [&] {
    launch_walk_bwd(stream, p, plan,
                    {.rows = data<T>(in.k),
                     .columns = data<T>(in.q),
                     .values = data<T>(b.dh),
                     .out = data<T>(b.dv),
                     .gates = pointer<GateBlock>(gates),
                     .grads = pointer<GradBlock>(grads),
                     .states = data<T>(dc),
                     .state_n = data<float>(dn)},
                    pointer<void>(scratch));
  };
  const auto gradients = [&] {
    launch_hopper_grads(stream, p,
                        {.q = data<T>(in.q),
                         .k = data<T>(in.k),
                         .v = data<T>(in.v),
                         .dh = data<T>(b.dh),
                         .gates = pointer<GateBlock>(gates),
                         .grads = pointer<GradBlock>(grads),
                         .c = data<T>(call.forward.c_chunks),
                         .n = data<float>(call.forward.n_chunks),
                         .dc = data<T>(dc),
                         .dn = data<float>(dn),
                         .dq = data<T>(b.dq),
                         .dk = data<T>(b.dk),
                         .sums = {.q_own = data<float>(sums),
                                  .k_own = data<float>(sums) + part,
                                  .q_state = data<float>(sums) + 2 * part,
                                  .k_state = data<float>(sums) + 3 * part,
                                  .passing = data<float>(passing)}});
  };
  std::printf(
      "%s: %d slices of %d tiles, %d segments; gates %.3f, walk %.3f (h only %.3f, states only"
      " %.3f), ",
      c.name().c_str(), plan.slices, plan.tiles, plan.segments, clock.median_ms(gate),
      clock.median_ms([&] { walk(true, true); }), clock.median_ms([&] { walk(true, false); }),
      clock.median_ms([&] { walk(false, true); }));
  std::printf("delta %.3f, walk back %.3f, dq and dk %.3f ms\n", clock.median_ms(delta),
              clock.median_ms(walk_back), clock.median_ms(gradients));
  std::fflush(stdout);
}

// One decoding step of a head size: it reads and writes the state.
void time_decoding(Clock& clock, const Rates& rates) {
  constexpr std::int64_t kHeads = 8, kDqk = 256, kDv = 512;
  std::printf("\n| decoding, NH8 256/512 | us | of copy rate |\n|---|---|---|\n");
  for (const std::int64_t batch : {1, 8, 32}) {
    CellForwardArgs args;
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
    const double ms =
        clock.median_ms([&] { mlstm::cell_fwd[static_cast<int>(Form::kRecurrent)](kGpu, args); });
    const double bytes = 2.0 * static_cast<double>(in.c0.bytes());
    std::printf("| batch %d | %.1f | %.0f %% |\n", static_cast<int>(batch), 1e3 * ms,
                100.0 * bytes / rates.copy / ms);
  }
  std::fflush(stdout);
}

void run(const std::string& filter, bool checks, bool parts) {
  const std::vector<Case> cases = {
      {8, 8, 8192, 256, 512},  {8, 8, 8192, 256, 512, mlstm::InputGate::kSigmoid},
      {8, 16, 8192, 128, 256}, {16, 8, 2048, 128, 128},
      {1, 8, 65536, 256, 512}, {32, 8, 2048, 256, 512},
      {8, 16, 2048, 128, 256}, {8, 16, 2047, 96, 192, mlstm::InputGate::kExponential, true},
  };
  Clock clock;
  const Rates rates(clock);
  std::printf(
      "%s\n\ncopy rate %.2f TB/s (read + written), bf16 matrix rate %.0f TFLOP/s (8192^3)\n\n",
      cuda_status().c_str(), rates.copy * 1e-9, rates.matrix * 1e-9);
  std::printf("| shape | fw ms | floor | bw ms | floor | fw+bw ms |\n|---|---|---|---|---|---|\n");
  const auto wanted = [&](const Case& c) { return c.name().find(filter) != std::string::npos; };
  for (const Case& c : cases) {
    if (!wanted(c)) continue;
    const Call call(c);
    const double fw = clock.median_ms([&] { call.run_forward(); });
    const double bw = clock.median_ms([&] { call.run_backward(); });
    const auto floor = [&](double bytes, double flops) {
      return std::max(bytes / rates.copy, flops / rates.matrix);
    };
    std::printf("| %s | %.3f | %.3f | %.3f | %.3f | %.3f |\n", c.name().c_str(), fw,
                floor(c.forward_bytes(), c.forward_flops()), bw,
                floor(c.backward_bytes(), c.backward_flops()), fw + bw);
    std::fflush(stdout);
    if (parts) time_parts(clock, c, call);
  }
  if (filter.empty()) time_decoding(clock, rates);
  if (!checks) return;
  std::printf(
      "\n| relative L2 error | h | dq | dk | dv | di | df |\n|---|---|---|---|---|---|---|\n");
  for (const Case& c : cases) {
    if (!wanted(c)) continue;
    const Call call(c);
    call.run_forward();
    call.run_backward();
    check(c, call);
  }
}

}  // namespace
}  // namespace carousel

int main(int argc, char** argv) {
  using namespace carousel;  // NOLINT: main
  std::string filter;
  bool checks = true;
  bool parts = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg == "--no-check") {
      checks = false;
    } else if (arg == "--parts") {
      parts = true;
    } else {
      filter = arg;
    }
  }
  register_cpu_kernels();
  register_cuda_kernels();
  register_layer_cpu_kernels();
  register_layer_cuda_kernels();
  if (!has_backend(DeviceType::kCuda)) {
    std::fprintf(stderr, "no GPU: %s\n", cuda_status().c_str());
    return static_cast<int>(ExitCode::kUsage);
  }
  try {
    run(filter, checks, parts);
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return static_cast<int>(e.code());
  }
  return 0;
}
