// The chunkwise and the parallel form's forward on CUDA: which kernels make it up.
#include "layers/mlstm/cuda/call.h"
#include "layers/mlstm/cuda/hopper_walk.h"
#include "layers/mlstm/cuda/kernels.h"
#include "layers/mlstm/cuda/tiled.h"

namespace carousel::mlstm {
namespace cuda {
namespace {

using carousel::cuda::Stream;

void hopper(const Stream& stream, const Problem& p, const CellForwardArgs& args,
            const GateBlock* gates) {
  using T = __nv_bfloat16;
  const CellInputs& in = args.in;
  const WalkPlan plan = plan_walk(p, stream.info().multiprocessors);
  const Tensor scratch = workspace<std::uint8_t>(
      in.q.device(), static_cast<std::int64_t>(walk_scratch_bytes(p, plan)));
  launch_walk_fwd(stream, p, plan,
                  {.rows = data<T>(in.q),
                   .columns = data<T>(in.k),
                   .values = data<T>(in.v),
                   .out = data<T>(args.h),
                   .gates = gates,
                   .normaliser = data_or_null<float>(args.normaliser),
                   .sign = data_or_null<float>(args.denominator_sign),
                   .eps = static_cast<float>(in.eps),
                   .states = data_or_null<T>(args.c_chunks),
                   .state_n = data_or_null<float>(args.n_chunks),
                   .c_first = data_or_null<float>(in.c0),
                   .n_first = data_or_null<float>(in.n0),
                   .c_last = data_or_null<float>(args.c_last),
                   .n_last = data_or_null<float>(args.n_last)},
                  pointer<void>(scratch));
}

template <class T>
void tiled(const Stream& stream, const Problem& p, const CellForwardArgs& args, Form form,
           const GateBlock* gates) {
  const CellInputs& in = args.in;
  const int chunk_blocks = form == Form::kParallel ? p.blocks : kChunkBlocks;
  const std::int64_t chunks = form == Form::kParallel ? 1 : p.chunks();
  const bool has_states = form == Form::kChunkwise || in.c0.defined();
  Tensor c, n, rests;  // only bf16 rounds states
  if (has_states && sizeof(T) == 2) {
    rests = workspace<T>(in.q.device(), p.units() * chunks * p.dqk * p.dv);
  }
  if (has_states && !args.c_chunks.defined()) {
    c = workspace<T>(in.q.device(), p.units() * chunks * p.dqk * p.dv);
    n = workspace<float>(in.q.device(), p.units() * chunks * p.dqk);
  }
  T* const states = args.c_chunks.defined() ? data<T>(args.c_chunks) : pointer<T>(c);
  float* const state_n = args.n_chunks.defined() ? data<float>(args.n_chunks) : pointer<float>(n);
  if (has_states || args.c_last.defined() || args.n_last.defined()) {
    launch_tiled_states<T>(stream, p, true, chunk_blocks,
                           {.columns = data<T>(in.k),
                            .values = data<T>(in.v),
                            .gates = gates,
                            .states = states,
                            .rests = pointer<T>(rests),
                            .state_n = state_n,
                            .c_first = data_or_null<float>(in.c0),
                            .n_first = data_or_null<float>(in.n0),
                            .c_last = data_or_null<float>(args.c_last),
                            .n_last = data_or_null<float>(args.n_last)});
  }
  launch_tiled_out<T>(stream, p, true, chunk_blocks,
                      {.rows = data<T>(in.q),
                       .columns = data<T>(in.k),
                       .values = data<T>(in.v),
                       .gates = gates,
                       .states = states,
                       .rests = pointer<T>(rests),
                       .state_n = state_n,
                       .out = data<T>(args.h),
                       .normaliser = data_or_null<float>(args.normaliser),
                       .sign = data_or_null<float>(args.denominator_sign),
                       .eps = static_cast<float>(in.eps)});
}

template <class T>
void forward(const CellForwardArgs& args, Form form) {
  const CellInputs& in = args.in;
  const Device device = in.q.device();
  const Stream stream(device);
  const Problem p = problem_of(in);
  const std::int64_t blocks = static_cast<std::int64_t>(p.units()) * p.blocks;
  const Tensor summary = workspace<float2>(device, blocks);
  const Tensor gates = workspace<GateBlock>(device, blocks);
  launch_gates(stream, p, gate_inputs(in),
               {.summary = pointer<float2>(summary),
                .blocks = pointer<GateBlock>(gates),
                .stabiliser = data_or_null<float>(args.stabiliser),
                .m_last = data_or_null<float>(args.m_last),
                .m_chunks = data_or_null<float>(args.m_chunks)});
  if constexpr (sizeof(T) == 2) {
    if (form == Form::kChunkwise && uses_hopper(stream, in, {&args.h, &args.c_chunks})) {
      return hopper(stream, p, args, pointer<GateBlock>(gates));
    }
  }
  tiled<T>(stream, p, args, form, pointer<GateBlock>(gates));
}

}  // namespace
}  // namespace cuda

void register_cuda_blocked_fwd() {
  cell_fwd[static_cast<int>(Form::kParallel)].set(
      DeviceType::kCuda, [](const CellForwardArgs& args) {
        cuda::dispatch_cell(args.in.q.dtype(),
                            [&]<class T>() { cuda::forward<T>(args, Form::kParallel); });
      });
  cell_fwd[static_cast<int>(Form::kChunkwise)].set(
      DeviceType::kCuda, [](const CellForwardArgs& args) {
        cuda::dispatch_cell(args.in.q.dtype(),
                            [&]<class T>() { cuda::forward<T>(args, Form::kChunkwise); });
      });
}

}  // namespace carousel::mlstm
