// What the tensor-core kernels share: operands, products, and the exchange between a cluster's
// blocks.
#pragma once

#include <cooperative_groups.h>

#include <cstdint>

#include "core/cuda/arrivals.cuh"
#include "core/cuda/device.cuh"
#include "layers/slstm/cuda/mma_plan.h"

namespace carousel::slstm {

using cuda::bf16;

/// Threads t of a warp as mma numbers them: t / 4 is a row of A and a column of B, and the pairs of
/// A's and B's inputs and of D's columns begin at 2 · (t % 4).
struct MmaLane {
  int lane = static_cast<int>(threadIdx.x) % 32;
  int group = lane / 4;
  int pair = lane % 4 * 2;
};

/// One thread's part of a 16 × 16 tile of weights.
struct MmaWeights {
  std::uint32_t at[4];
};

/// The part of a tile whose element (row, input) is weight(row, input).
template <class Weight>
__device__ __forceinline__ MmaWeights mma_weights(const MmaLane& l, const Weight& weight) {
  MmaWeights w;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = l.group + i % 2 * 8;
    const int input = l.pair + i / 2 * 8;
    const __nv_bfloat162 two = __floats2bfloat162_rn(weight(row, input), weight(row, input + 1));
    w.at[i] = *reinterpret_cast<const std::uint32_t*>(&two);
  }
  return w;
}

/// sum (16 × 8) += weights (16 × 16) · inputs (16 × 8).
__device__ __forceinline__ void mma(float (&sum)[4], const MmaWeights& w, std::uint32_t b0,
                                    std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7},"
      " {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(w.at[0]), "r"(w.at[1]), "r"(w.at[2]), "r"(w.at[3]), "r"(b0), "r"(b1));
}

/// Where this thread finds its row of the inputs of two neighbouring tiles, for mma_inputs().
/// Columns without a batch row read the last one again: nobody looks at their sums.
__device__ __forceinline__ const bf16* mma_inputs_of(const bf16* inputs, int pitch, int rows,
                                                     int lane) {
  return inputs + min(lane % 8, rows - 1) * pitch + lane / 8 * 8;
}
/// The inputs of two neighbouring tiles: b[0], b[1] of the first, b[2], b[3] of the second.
__device__ __forceinline__ void mma_inputs(const bf16* from, std::uint32_t (&b)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(from)))
               : "memory");
}

/// How a cluster's blocks hand each other a step's numbers. Two buffers in turn have a barrier in
/// shared memory each, which counts the own warps that have written and the bytes that came from
/// other blocks; nobody waits for ordinary writes to device memory, as the hardware's barrier of a
/// cluster does. Who has waited for turn u may overwrite what turn u − 1 read: all blocks have sent
/// turn u, which they do behind a __syncthreads() after reading. Without a cluster (and before
/// compute capability 9.0) waiting is __syncthreads().
class Exchange {
 public:
  /// `elements` threads write, `numbers` each in a turn. Ends in a barrier of the cluster.
  __device__ Exchange(std::uint64_t* barriers, int cluster, int rank, int elements, int numbers)
      : cluster_(cluster), rank_(rank), elements_(elements) {
#if __CUDA_ARCH__ >= 900
    barriers_ = static_cast<unsigned>(__cvta_generic_to_shared(barriers));
    bytes_ = static_cast<unsigned>((cluster - 1) * elements * numbers) * 2;
    if (cluster > 1) {
      if (threadIdx.x == 0) {
        const int writers = (elements + 31) / 32 * cuda::kWarpArrivals;
        for (unsigned b = 0; b < 2; ++b) {
          asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barriers_ + 8 * b),
                       "r"(writers)
                       : "memory");
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
      }
      cooperative_groups::this_cluster().sync();
      return;
    }
#endif
    __syncthreads();
  }

  /// What this thread sends of its warp's numbers, kSets of 32 threads' each: eight neighbouring
  /// ones, in every turn the same.
  struct Piece {
    int set, element;
  };
  template <int kSets>
  static __device__ Piece piece() {
    const int thread = static_cast<int>(threadIdx.x);
    return {thread % 32 / 4 % kSets, thread / 32 * 32 + thread % 4 * 8};
  }

  /// Called by whole warps, those whose first thread writes, when they have written turn `turn`:
  /// sends their numbers to all other blocks. This thread's piece lies at `own` here and there.
  template <int kSets>
  __device__ __forceinline__ void send([[maybe_unused]] int turn,
                                       [[maybe_unused]] const bf16* own) const {
#if __CUDA_ARCH__ >= 900
    if (cluster_ == 1) return;
    __syncwarp();
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const unsigned barrier = barriers_ + static_cast<unsigned>(turn % 2 * 8);
    if (piece<kSets>().element < elements_) {
      const uint4 x = *reinterpret_cast<const uint4*>(own);
      const unsigned offset = static_cast<unsigned>(__cvta_generic_to_shared(own)) - barrier;
      for (int to = lane / (4 * kSets); to < cluster_; to += 8 / kSets) {
        if (to == rank_) continue;
        asm volatile(
            "{\n"
            ".reg .b32 data, barrier;\n"
            "mapa.shared::cluster.u32 barrier, %0, %2;\n"
            "add.u32 data, barrier, %1;\n"
            "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [data],"
            " {%3, %4, %5, %6}, [barrier];\n"
            "}\n" ::"r"(barrier),
            "r"(offset), "r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
            : "memory");
      }
    }
    if (lane >= cuda::kWarpArrivals) return;
    if (threadIdx.x == 0) {
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
                   "r"(bytes_)
                   : "memory");
    } else {
      asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
    }
#endif
  }

  /// Waits until all numbers of turn `turn` are here.
  __device__ __forceinline__ void wait([[maybe_unused]] int turn) const {
#if __CUDA_ARCH__ >= 900
    if (cluster_ > 1) {
      asm volatile(
          "{\n"
          ".reg .pred done;\n"
          "again:\n"
          "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
          "@done bra finished;\n"
          "bra again;\n"
          "finished:\n"
          "}\n" ::"r"(barriers_ + static_cast<unsigned>(turn % 2 * 8)),
          "r"(turn / 2 % 2)
          : "memory");
      return;
    }
#endif
    __syncthreads();
  }

 private:
  int cluster_, rank_, elements_;
  unsigned barriers_ = 0;  // in shared memory
  unsigned bytes_ = 0;     // that a turn brings from other blocks
};

}  // namespace carousel::slstm
