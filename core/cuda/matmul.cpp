// Precision: f32 multiplies in true float32; bf16 operands accumulate in float32 and round once.
#include "core/kernels/matmul.h"

#include "core/cuda/gemm.h"
#include "core/cuda/kernels.h"
#include "core/kernels/elementwise.h"

namespace carousel::cuda {
namespace {

void matmul_kernel(const MatmulArgs& args) {
  const DType dtype = args.a.dtype();
  if (dtype != DType::kF32 && dtype != DType::kBF16) {
    throw InternalError("[matmul] no CUDA kernel for dtype {}", name_of(dtype));
  }
  const Stream stream(args.out.device());
  const std::int64_t m = args.out.dim(0);
  const std::int64_t n = args.out.dim(1);
  Tensor bias = args.bias;
  if (bias.defined() && bias.dtype() != args.out.dtype()) {
    // cuBLASLt adds biases of the output's dtype only.
    const RoleScope role(Role::kWorkspace);
    bias = Tensor::empty(bias.shape(), args.out.dtype(), bias.device());
    cast(bias.device(), {args.bias, bias});
  }
  gemm(stream,
       {.m = m,
        .n = n,
        .k = args.a.dim(args.transpose_a ? 0 : 1),
        .transpose_a = args.transpose_a,
        .transpose_b = args.transpose_b,
        .dtype = dtype,
        .out_dtype = args.out.dtype(),
        .lda = args.a.dim(1),
        .ldb = args.b.dim(1),
        .ldc = n,
        .accumulate = args.accumulate},
       args.a.raw(), args.b.raw(), args.out.raw(), bias.defined() ? bias.raw() : nullptr);
}

}  // namespace

void register_matmul() { matmul.set(DeviceType::kCuda, matmul_kernel); }

}  // namespace carousel::cuda
