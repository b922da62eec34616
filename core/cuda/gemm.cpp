#include "core/cuda/gemm.h"

#include <algorithm>
#include <bit>
#include <mutex>
#include <unordered_map>

#include "core/base/error.h"
#include "core/cuda/checkers.h"
#include "core/cuda/error.h"
#include "core/kernels/matmul.h"
#include "core/tensor/tensor.h"

namespace carousel::cuda {
namespace {

// NVIDIA's advice for Hopper; older chips need less.
constexpr std::size_t kWorkspaceBytes = kCudaMatmulScratch;

// cuBLASLt is column-major. A row-major (R,C) matrix is a column-major (C,R) one, so it is asked
// for outᵀ = op(b)ᵀ·op(a)ᵀ: its first operand is our b.
struct PlanKey {
  Gemm problem;
  int device = 0;
  bool has_bias = false;
  bool tf32 = false;
  unsigned align_a = 0, align_b = 0, align_c = 0;
  bool operator==(const PlanKey&) const = default;
};

struct PlanKeyHash {
  std::size_t operator()(const PlanKey& key) const {
    std::size_t h = 0;
    const auto mix = [&h](std::size_t v) {
      h = (h ^ v) * 0x9E3779B97F4A7C15u;
      h ^= h >> 29;
    };
    const Gemm& p = key.problem;
    for (const std::int64_t v :
         {p.m, p.n, p.k, p.lda, p.ldb, p.ldc, p.batch, p.stride_a, p.stride_b, p.stride_c}) {
      mix(static_cast<std::size_t>(v));
    }
    mix(static_cast<std::size_t>(p.dtype) << 8 | static_cast<std::size_t>(p.out_dtype));
    mix(static_cast<std::size_t>(p.transpose_a) | static_cast<std::size_t>(p.transpose_b) << 1 |
        static_cast<std::size_t>(p.accumulate) << 2 | static_cast<std::size_t>(key.has_bias) << 3 |
        static_cast<std::size_t>(key.tf32) << 4 | static_cast<std::size_t>(key.device) << 5);
    mix(static_cast<std::size_t>(key.align_a) | static_cast<std::size_t>(key.align_b) << 16 |
        static_cast<std::size_t>(key.align_c) << 32);
    return h;
  }
};

struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;  // cuBLASLt's a is our b
  cublasLtMatmulAlgo_t algorithm{};
};

cudaDataType_t data_type(DType t) { return t == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

// The largest power of two, at most 256, that divides the address.
unsigned alignment_of(const void* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p) | 256u;
  return 1u << std::countr_zero(address);
}

// The layout of a row-major (rows, ·) matrix that cuBLASLt sees transposed.
cublasLtMatrixLayout_t make_layout(DType dtype, std::int64_t rows, std::int64_t columns,
                                   std::int64_t row_stride, std::int64_t batch,
                                   std::int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&layout, data_type(dtype),
                                          static_cast<std::uint64_t>(columns),
                                          static_cast<std::uint64_t>(rows), row_stride));
  const auto count = static_cast<std::int32_t>(batch);
  CUBLAS_CHECK(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                                sizeof count));
  CUBLAS_CHECK(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                &stride, sizeof stride));
  return layout;
}

void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t name, const auto& value) {
  CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof value));
}

void choose_algorithm(cublasLtHandle_t handle, const PlanKey& key, Plan& plan) {
  cublasLtMatmulPreference_t preference = nullptr;
  CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
    CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof value));
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::uint32_t{key.align_b});
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, std::uint32_t{key.align_a});
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, std::uint32_t{key.align_c});
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, std::uint32_t{key.align_c});
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle, plan.operation, plan.a, plan.b, plan.c, plan.c, preference, 1, &found, &count);
  CUBLAS_CHECK(cublasLtMatmulPreferenceDestroy(preference));
  const Gemm& p = key.problem;
  if (status != CUBLAS_STATUS_SUCCESS || count == 0) {
    throw InternalError("[matmul] cuBLASLt knows no algorithm for {} ({},{},{}) x {} into {} ({})",
                        p.m, p.n, p.k, p.batch, name_of(p.dtype), name_of(p.out_dtype),
                        cublasLtGetStatusName(status));
  }
  plan.algorithm = found.algo;
}

Plan make_plan(cublasLtHandle_t handle, const PlanKey& key) {
  const Gemm& p = key.problem;
  Plan plan;
  CUBLAS_CHECK(cublasLtMatmulDescCreate(
      &plan.operation, key.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
  set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (key.has_bias) {
    set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, data_type(p.out_dtype));
  }
  plan.a = make_layout(p.dtype, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb,
                       p.batch, p.stride_b);
  plan.b = make_layout(p.dtype, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda,
                       p.batch, p.stride_a);
  plan.c = make_layout(p.out_dtype, p.m, p.n, p.ldc, p.batch, p.stride_c);
  choose_algorithm(handle, key, plan);
  return plan;
}

// The handle, the plans and the scratch memory of all devices.
class Library {
 public:
  Library() { CUBLAS_CHECK(cublasLtCreate(&handle_)); }

  void run(const Stream& stream, const PlanKey& key, const void* a, const void* b, void* out,
           const void* bias) {
    const std::lock_guard lock(mutex_);  // a plan's bias pointer is set before each use
    auto it = plans_.find(key);
    if (it == plans_.end()) it = plans_.emplace(key, make_plan(handle_, key)).first;
    const Plan& plan = it->second;
    if (key.has_bias) set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    const float alpha = 1.0f;
    const float beta = key.problem.accumulate ? 1.0f : 0.0f;
    CUBLAS_CHECK(cublasLtMatmul(handle_, plan.operation, &alpha, b, plan.a, a, plan.b, &beta, out,
                                plan.c, out, plan.c, &plan.algorithm, workspace(stream.device()),
                                kWorkspaceBytes, stream.handle()));
    // Some of cuBLASLt's kernels store by the copy engine.
    const Gemm& p = key.problem;
    const bool behind = p.ldc == p.n && (p.batch == 1 || p.stride_c == p.m * p.n);
    const bool beside = p.ldc == p.n * p.batch && p.stride_c == p.n;
    if (behind || beside) {
      mark_written(stream, out,
                   static_cast<std::size_t>(p.batch * p.m * p.n) * size_of(p.out_dtype));
    }
  }

 private:
  void* workspace(Device device) {
    Tensor& t = workspaces_[device.index];
    if (!t.defined()) {
      const RoleScope role(Role::kWorkspace);
      t = Tensor::empty({static_cast<std::int64_t>(kWorkspaceBytes)}, DType::kU8, device);
    }
    return t.raw();
  }

  cublasLtHandle_t handle_ = nullptr;
  std::mutex mutex_;
  std::unordered_map<PlanKey, Plan, PlanKeyHash> plans_;
  std::unordered_map<int, Tensor> workspaces_;
};

// A sum of no terms: zeros, or what was there.
void sum_of_nothing(const Stream& stream, const Gemm& p, void* out) {
  if (p.accumulate) return;
  const std::size_t size = size_of(p.out_dtype);
  for (std::int64_t i = 0; i < p.batch; ++i) {
    CUDA_CHECK(cudaMemset2DAsync(
        static_cast<std::byte*>(out) + static_cast<std::size_t>(i * p.stride_c) * size,
        static_cast<std::size_t>(p.ldc) * size, 0, static_cast<std::size_t>(p.n) * size,
        static_cast<std::size_t>(p.m), stream.handle()));
  }
}

}  // namespace

void gemm(const Stream& stream, const Gemm& problem, const void* a, const void* b, void* out,
          const void* bias) {
  if (problem.m == 0 || problem.n == 0 || problem.batch == 0) return;
  if (problem.k == 0) {
    CAROUSEL_CHECK(bias == nullptr, "a product over no elements has no bias");
    return sum_of_nothing(stream, problem, out);
  }
  static auto& library = *new Library;  // never destroyed: the driver may be gone before
  const PlanKey key{.problem = problem,
                    .device = stream.device().index,
                    .has_bias = bias != nullptr,
                    .tf32 = problem.dtype == DType::kF32 && allow_tf32,
                    .align_a = alignment_of(a),
                    .align_b = alignment_of(b),
                    .align_c = alignment_of(out)};
  library.run(stream, key, a, b, out, bias);
}

}  // namespace carousel::cuda
