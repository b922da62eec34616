// Descriptions of tensors for Hopper's bulk tensor copy engine.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

namespace carousel::mlstm::cuda {

/// A bf16 tensor of rank 4 with contiguous innermost dimension; boxes of 64 × 1 × rows × 1 elements
/// (or 64 × rows × 1 × 1 if `rows` runs along the second dimension), swizzled in 128 bytes. The
/// address and the strides must be multiples of 16 bytes. Throws InternalError if the driver
/// refuses it.
///
/// token_map: (B, S, NH, D), coordinates (d, head, token, batch).
CUtensorMap token_map(const __nv_bfloat16* data, int batch, int time, int heads, int width,
                      int rows);
/// matrix_map: (count, rows, columns), coordinates (column, row, index, 0).
CUtensorMap matrix_map(const __nv_bfloat16* data, std::int64_t count, int matrix_rows, int columns,
                       int rows);

}  // namespace carousel::mlstm::cuda
