// Marks inline functions that the CPU and the CUDA kernels share (pointwise cell formulas, Philox).
#pragma once

#ifdef __CUDACC__
#define CAROUSEL_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define CAROUSEL_HOST_DEVICE inline
#endif
