// The recurrent form on CUDA: which kernels make it up.
#include "layers/mlstm/cuda/gate_grads.h"
#include "layers/mlstm/cuda/kernels.h"
#include "layers/mlstm/cuda/scan.h"

namespace carousel::mlstm {
namespace cuda {
namespace {

using carousel::cuda::Stream;

template <class T>
void forward(const CellForwardArgs& args) {
  const CellInputs& in = args.in;
  const Device device = in.q.device();
  const Stream stream(device);
  const Problem p = problem_of(in);
  const auto eps = static_cast<float>(in.eps);
  const bool wants_statistics = args.normaliser.defined() || args.stabiliser.defined();
  if (p.time == 1 && !wants_statistics) {
    launch_step<T>(stream, p,
                   {.q = data<T>(in.q),
                    .k = data<T>(in.k),
                    .v = data<T>(in.v),
                    .gates = gate_inputs(in),
                    .c0 = data_or_null<float>(in.c0),
                    .n0 = data_or_null<float>(in.n0),
                    .eps = eps,
                    .h = data<T>(args.h),
                    .c_last = data_or_null<float>(args.c_last),
                    .n_last = data_or_null<float>(args.n_last),
                    .m_last = data_or_null<float>(args.m_last)});
    return;
  }
  check_scan_sizes(p);
  const std::int64_t tokens = static_cast<std::int64_t>(p.units()) * p.time;
  const Tensor factors = workspace<float>(device, 3 * tokens);
  float* const base = pointer<float>(factors);
  const TokenFactors token_factors{base, base + tokens, base + 2 * tokens};
  launch_token_factors(stream, p, gate_inputs(in), token_factors,
                       data_or_null<float>(args.stabiliser), data_or_null<float>(args.m_last));
  launch_scan_fwd<T>(stream, p,
                     {.q = data<T>(in.q),
                      .k = data<T>(in.k),
                      .v = data<T>(in.v),
                      .factors = token_factors,
                      .c0 = data_or_null<float>(in.c0),
                      .n0 = data_or_null<float>(in.n0),
                      .eps = eps,
                      .h = data<T>(args.h),
                      .normaliser = data_or_null<float>(args.normaliser),
                      .sign = data_or_null<float>(args.denominator_sign),
                      .c_last = data_or_null<float>(args.c_last),
                      .n_last = data_or_null<float>(args.n_last)});
}

template <class T>
void backward(const CellBackwardArgs& args) {
  const CellInputs& in = args.in;
  const Device device = in.q.device();
  const Stream stream(device);
  const Problem p = problem_of(in);
  check_scan_sizes(p);
  const std::int64_t tokens = static_cast<std::int64_t>(p.units()) * p.time;
  const Tensor factors = workspace<float>(device, 3 * tokens);
  float* const base = pointer<float>(factors);
  const TokenFactors token_factors{base, base + tokens, base + 2 * tokens};
  launch_token_factors(stream, p, gate_inputs(in), token_factors, nullptr, nullptr);
  const Tensor grads = make_grad_blocks<T>(stream, p, args);
  GateGrads gate_grads(stream, p, args, scan_parts(p), p.blocks, false);
  const bool sums = needs_gate_grads(args);
  launch_scan_bwd<T>(stream, p,
                     {.q = data<T>(in.q),
                      .k = data<T>(in.k),
                      .v = data<T>(in.v),
                      .dh = data<T>(args.dh),
                      .factors = token_factors,
                      .grads = pointer<GradBlock>(grads),
                      .c0 = data_or_null<float>(in.c0),
                      .n0 = data_or_null<float>(in.n0),
                      .dc_last = data_or_null<float>(args.dc_last),
                      .dn_last = data_or_null<float>(args.dn_last),
                      .dq = data_or_null<T>(args.dq),
                      .dk = data_or_null<T>(args.dk),
                      .dv = data_or_null<T>(args.dv),
                      .q_dq = sums ? gate_grads.sums().q_own : nullptr,
                      .k_dk = sums ? gate_grads.sums().k_own : nullptr,
                      .dc0 = data_or_null<float>(args.dc0),
                      .dn0 = data_or_null<float>(args.dn0)});
  if (sums && args.dc_last.defined()) gate_grads.pass_last_state();
  gate_grads.finish();
}

}  // namespace
}  // namespace cuda

void register_cuda_recurrent() {
  constexpr int kForm = static_cast<int>(Form::kRecurrent);
  cell_fwd[kForm].set(DeviceType::kCuda, [](const CellForwardArgs& args) {
    cuda::dispatch_cell(args.in.q.dtype(), [&]<class T>() { cuda::forward<T>(args); });
  });
  cell_bwd[kForm].set(DeviceType::kCuda, [](const CellBackwardArgs& args) {
    cuda::dispatch_cell(args.in.q.dtype(), [&]<class T>() { cuda::backward<T>(args); });
  });
}

}  // namespace carousel::mlstm
