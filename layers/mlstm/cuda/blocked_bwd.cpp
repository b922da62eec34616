// The chunkwise and the parallel form's backward on CUDA: which kernels make it up.
#include "layers/mlstm/cuda/gate_grads.h"
#include "layers/mlstm/cuda/hopper_grads.h"
#include "layers/mlstm/cuda/hopper_walk.h"
#include "layers/mlstm/cuda/kernels.h"
#include "layers/mlstm/cuda/tiled.h"

namespace carousel::mlstm {
namespace cuda {
namespace {

using carousel::cuda::Stream;

// States at chunk borders and where they come from.
template <class T>
struct States {
  Tensor c_memory, n_memory, rests_memory;
  T* c = nullptr;
  T* rests = nullptr;  // what rounding left of c
  float* n = nullptr;

  void allocate(const Problem& p, Device device, std::int64_t chunks) {
    c_memory = workspace<T>(device, p.units() * chunks * p.dqk * p.dv);
    n_memory = workspace<float>(device, p.units() * chunks * p.dqk);
    c = pointer<T>(c_memory);
    n = pointer<float>(n_memory);
  }
  // Only bf16 rounds states.
  void allocate_rests() {
    if constexpr (sizeof(T) == 2) {
      rests_memory = workspace<std::uint8_t>(c_memory.device(), c_memory.numel());
      rests = pointer<T>(rests_memory);
    }
  }
  void use(const Tensor& c_chunks, const Tensor& n_chunks) {
    c = data<T>(c_chunks);
    n = data<float>(n_chunks);
  }
};

// What every step of one call needs.
template <class T>
struct Blocks {
  const Stream& stream;
  const Problem& p;
  const CellBackwardArgs& args;
  const GateBlock* gates;
  const GradBlock* grads;
};

void hopper_states(const Blocks<__nv_bfloat16>& b, States<__nv_bfloat16>& c,
                   States<__nv_bfloat16>& dc) {
  using T = __nv_bfloat16;
  const CellInputs& in = b.args.in;
  const WalkPlan plan = plan_walk(b.p, b.stream.info().multiprocessors);
  const Tensor scratch = workspace<std::uint8_t>(
      in.q.device(), static_cast<std::int64_t>(walk_scratch_bytes(b.p, plan)));
  if (b.args.c_chunks.defined()) {
    c.use(b.args.c_chunks, b.args.n_chunks);
  } else if (needs_qk_grads(b.args)) {
    c.allocate(b.p, in.q.device(), b.p.chunks());
    launch_walk_fwd(b.stream, b.p, plan,
                    {.columns = data<T>(in.k),
                     .values = data<T>(in.v),
                     .gates = b.gates,
                     .states = c.c,
                     .state_n = c.n,
                     .c_first = data_or_null<float>(in.c0),
                     .n_first = data_or_null<float>(in.n0)},
                    pointer<void>(scratch));
  }
  dc.allocate(b.p, in.q.device(), b.p.chunks());
  launch_walk_bwd(b.stream, b.p, plan,
                  {.rows = data<T>(in.k),
                   .columns = data<T>(in.q),
                   .values = data<T>(b.args.dh),
                   .out = data_or_null<T>(b.args.dv),
                   .gates = b.gates,
                   .grads = b.grads,
                   .states = dc.c,
                   .state_n = dc.n,
                   .c_first = data_or_null<float>(b.args.dc_last),
                   .n_first = data_or_null<float>(b.args.dn_last),
                   .c_last = data_or_null<float>(b.args.dc0),
                   .n_last = data_or_null<float>(b.args.dn0)},
                  pointer<void>(scratch));
}

void hopper_grads(const Blocks<__nv_bfloat16>& b, const States<__nv_bfloat16>& c,
                  const States<__nv_bfloat16>& dc, const GateGrads& gate_grads) {
  using T = __nv_bfloat16;
  const CellInputs& in = b.args.in;
  launch_hopper_grads(b.stream, b.p,
                      {.q = data<T>(in.q),
                       .k = data<T>(in.k),
                       .v = data<T>(in.v),
                       .dh = data<T>(b.args.dh),
                       .gates = b.gates,
                       .grads = b.grads,
                       .c = c.c,
                       .n = c.n,
                       .dc = dc.c,
                       .dn = dc.n,
                       .dq = data_or_null<T>(b.args.dq),
                       .dk = data_or_null<T>(b.args.dk),
                       .sums = gate_grads.sums()});
}

template <class T>
void tiled_states(const Blocks<T>& b, Form form, int chunk_blocks, std::int64_t chunks,
                  States<T>& c, States<T>& dc) {
  const CellInputs& in = b.args.in;
  const Device device = in.q.device();
  const bool chunkwise = form == Form::kChunkwise;
  if (chunkwise && b.args.c_chunks.defined()) {
    c.use(b.args.c_chunks, b.args.n_chunks);
  } else if (needs_qk_grads(b.args) && (chunkwise || in.c0.defined())) {
    c.allocate(b.p, device, chunks);
    launch_tiled_states<T>(b.stream, b.p, true, chunk_blocks,
                           {.columns = data<T>(in.k),
                            .values = data<T>(in.v),
                            .gates = b.gates,
                            .states = c.c,
                            .state_n = c.n,
                            .c_first = data_or_null<float>(in.c0),
                            .n_first = data_or_null<float>(in.n0)});
  }
  if (chunkwise || b.args.dc_last.defined()) {
    dc.allocate(b.p, device, chunks);
    if (b.args.dv.defined()) dc.allocate_rests();
  }
  if (chunkwise || b.args.dc_last.defined() || b.args.dc0.defined() || b.args.dn0.defined()) {
    launch_tiled_states<T>(b.stream, b.p, false, chunk_blocks,
                           {.columns = data<T>(in.q),
                            .values = data<T>(b.args.dh),
                            .gates = b.gates,
                            .grads = b.grads,
                            .states = dc.c,
                            .rests = dc.rests,
                            .state_n = dc.n,
                            .c_first = data_or_null<float>(b.args.dc_last),
                            .n_first = data_or_null<float>(b.args.dn_last),
                            .c_last = data_or_null<float>(b.args.dc0),
                            .n_last = data_or_null<float>(b.args.dn0)});
  }
}

template <class T>
void tiled_grads(const Blocks<T>& b, int chunk_blocks, const States<T>& c, const States<T>& dc,
                 const GateGrads& gate_grads) {
  const CellInputs& in = b.args.in;
  if (b.args.dv.defined()) {
    launch_tiled_out<T>(b.stream, b.p, false, chunk_blocks,
                        {.rows = data<T>(in.k),
                         .columns = data<T>(in.q),
                         .values = data<T>(b.args.dh),
                         .gates = b.gates,
                         .grads = b.grads,
                         .states = dc.c,
                         .rests = dc.rests,
                         .state_n = dc.n,
                         .out = data<T>(b.args.dv)});
  }
  if (!needs_qk_grads(b.args)) return;
  launch_tiled_grad<T>(b.stream, b.p, true, chunk_blocks,
                       {.rows = data<T>(b.args.dh),
                        .columns = data<T>(in.v),
                        .factors = data<T>(in.k),
                        .own = data<T>(in.q),
                        .gates = b.gates,
                        .grads = b.grads,
                        .states = c.c,
                        .state_n = c.n,
                        .out = data_or_null<T>(b.args.dq),
                        .own_sums = gate_grads.sums().q_own,
                        .state_sums = gate_grads.sums().q_state});
  launch_tiled_grad<T>(b.stream, b.p, false, chunk_blocks,
                       {.rows = data<T>(in.v),
                        .columns = data<T>(b.args.dh),
                        .factors = data<T>(in.q),
                        .own = data<T>(in.k),
                        .gates = b.gates,
                        .grads = b.grads,
                        .states = dc.c,
                        .state_n = dc.n,
                        .out = data_or_null<T>(b.args.dk),
                        .own_sums = gate_grads.sums().k_own,
                        .state_sums = gate_grads.sums().k_state});
}

template <class T>
void run_tiled(const Blocks<T>& b, Form form) {
  const bool parallel = form == Form::kParallel;
  const int chunk_blocks = parallel ? b.p.blocks : kChunkBlocks;
  States<T> c, dc;
  tiled_states(b, form, chunk_blocks, parallel ? 1 : b.p.chunks(), c, dc);
  GateGrads gate_grads(b.stream, b.p, b.args, tiled_grad_parts(b.p), chunk_blocks, true);
  tiled_grads(b, chunk_blocks, c, dc, gate_grads);
  if (needs_gate_grads(b.args)) {
    if (c.c != nullptr && dc.c != nullptr) {
      launch_passing<T>(b.stream, b.p, chunk_blocks, b.gates, c.c, c.n, dc.c, dc.n,
                        gate_grads.sums().passing);
    } else {
      gate_grads.no_passing();
    }
  }
  gate_grads.finish();
}

void run_hopper(const Blocks<__nv_bfloat16>& b) {
  States<__nv_bfloat16> c, dc;
  hopper_states(b, c, dc);
  const GateGrads gate_grads(b.stream, b.p, b.args, 1, kChunkBlocks, true);
  if (needs_qk_grads(b.args)) hopper_grads(b, c, dc, gate_grads);
  gate_grads.finish();
}

template <class T>
void backward(const CellBackwardArgs& args, Form form) {
  const CellInputs& in = args.in;
  const Device device = in.q.device();
  const Stream stream(device);
  const Problem p = problem_of(in);
  const std::int64_t blocks = static_cast<std::int64_t>(p.units()) * p.blocks;
  const Tensor summary = workspace<float2>(device, blocks);
  const Tensor gates = workspace<GateBlock>(device, blocks);
  launch_gates(stream, p, gate_inputs(in),
               {.summary = pointer<float2>(summary), .blocks = pointer<GateBlock>(gates)});
  const Tensor grads = make_grad_blocks<T>(stream, p, args);
  const Blocks<T> b{stream, p, args, pointer<GateBlock>(gates), pointer<GradBlock>(grads)};
  if constexpr (sizeof(T) == 2) {
    if (form == Form::kChunkwise &&
        uses_hopper(stream, in, {&args.dh, &args.c_chunks, &args.dq, &args.dk, &args.dv})) {
      return run_hopper(b);
    }
  }
  run_tiled(b, form);
}

}  // namespace
}  // namespace cuda

void register_cuda_blocked_bwd() {
  cell_bwd[static_cast<int>(Form::kParallel)].set(
      DeviceType::kCuda, [](const CellBackwardArgs& args) {
        cuda::dispatch_cell(args.in.q.dtype(),
                            [&]<class T>() { cuda::backward<T>(args, Form::kParallel); });
      });
  cell_bwd[static_cast<int>(Form::kChunkwise)].set(
      DeviceType::kCuda, [](const CellBackwardArgs& args) {
        cuda::dispatch_cell(args.in.q.dtype(),
                            [&]<class T>() { cuda::backward<T>(args, Form::kChunkwise); });
      });
}

}  // namespace carousel::mlstm
