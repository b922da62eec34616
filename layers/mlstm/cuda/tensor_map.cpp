#include "layers/mlstm/cuda/tensor_map.h"

#include <cuda_runtime_api.h>

#include "core/cuda/error.h"

namespace carousel::mlstm::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, found at run time so that libcuda is not linked.
Encode encode_function() {
  static const Encode function = [] {
    void* pointer = nullptr;
    cudaDriverEntryPointQueryResult found{};
    CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &pointer, 12000,
                                                cudaEnableDefault, &found));
    CAROUSEL_CHECK(found == cudaDriverEntryPointSuccess,
                   "the driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(pointer);
  }();
  return function;
}

struct Dims {
  cuuint64_t size[4];
  cuuint64_t stride_bytes[3];  // of dimensions 1 to 3
  cuuint32_t box[4];
};

CUtensorMap encode(const __nv_bfloat16* data, const Dims& dims) {
  constexpr cuuint32_t kUnitSteps[4] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result =
      encode_function()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<__nv_bfloat16*>(data),
                        dims.size, dims.stride_bytes, dims.box, kUnitSteps,
                        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  CAROUSEL_CHECK(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled: error {} for sizes {} {} {} {}",
                 static_cast<int>(result), dims.size[0], dims.size[1], dims.size[2], dims.size[3]);
  return map;
}

}  // namespace

CUtensorMap token_map(const __nv_bfloat16* data, int batch, int time, int heads, int width,
                      int rows) {
  const auto b = static_cast<cuuint64_t>(batch);
  const auto s = static_cast<cuuint64_t>(time);
  const auto h = static_cast<cuuint64_t>(heads);
  const auto d = static_cast<cuuint64_t>(width);
  return encode(
      data,
      {{d, h, s, b}, {2 * d, 2 * d * h, 2 * d * h * s}, {64, 1, static_cast<cuuint32_t>(rows), 1}});
}

CUtensorMap matrix_map(const __nv_bfloat16* data, std::int64_t count, int matrix_rows, int columns,
                       int rows) {
  const auto n = static_cast<cuuint64_t>(count);
  const auto r = static_cast<cuuint64_t>(matrix_rows);
  const auto c = static_cast<cuuint64_t>(columns);
  return encode(
      data,
      {{c, r, n, 1}, {2 * c, 2 * c * r, 2 * c * r * n}, {64, static_cast<cuuint32_t>(rows), 1, 1}});
}

}  // namespace carousel::mlstm::cuda
