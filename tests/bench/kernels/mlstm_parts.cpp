#include "core/cuda/dispatch.h"
#include "core/cuda/stream.h"
#include "layers/mlstm/cuda/call.h"
#include "layers/mlstm/cuda/hopper_grads.h"
#include "layers/mlstm/cuda/hopper_walk.h"
#include "tests/bench/kernels/mlstm_case.h"

namespace carousel::bench {
namespace {

void time_parts(const Clock& clock, const MlstmCase& c, const MlstmCall& call) {
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
  const mlstm::CellBackwardArgs& b = call.backward;
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

}  // namespace

void mlstm_parts(const Clock& clock) {
  std::printf("\n");
  for (const MlstmCase& c : {MlstmCase{8, 8, 8192, 256, 512},
                             {8, 16, 8192, 128, 256},
                             {16, 8, 2048, 128, 128},
                             {1, 8, 65536, 256, 512}}) {
    const MlstmCall call(c);
    call.run();
    time_parts(clock, c, call);
  }
}

}  // namespace carousel::bench
