// Hopper's own instructions (sm_90a) as small functions: barriers in shared memory with transaction
// counts, the bulk tensor copy engine, asynchronous warpgroup matrix products and their operands.
// Source: the PTX ISA, sections on mbarrier, cp.async.bulk(.tensor), wgmma and stmatrix.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

#include "core/cuda/arrivals.cuh"
#include "core/cuda/registers.cuh"

namespace carousel::mlstm::hopper {

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// --- barriers ----------------------------------------------------------------------------------

__device__ __forceinline__ void barrier_init(std::uint64_t* barrier, unsigned count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count)
               : "memory");
}
/// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
/// One arrival, and the phase also waits for `bytes` from the copy engine.
__device__ __forceinline__ void barrier_expect(std::uint64_t* barrier, unsigned bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
/// Arrives at the same barrier of CTA `rank` of the cluster.
__device__ __forceinline__ void barrier_arrive_at(std::uint64_t* barrier, unsigned rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(rank)
      : "memory");
}
using carousel::cuda::kWarpArrivals;

/// A warp's arrivals; called by whole warps.
__device__ __forceinline__ void warp_arrive(std::uint64_t* barrier) {
  __syncwarp();
  if (static_cast<int>(threadIdx.x) % 32 < kWarpArrivals) barrier_arrive(barrier);
}
/// The same at the barriers of all CTAs of the cluster.
__device__ __forceinline__ void warp_arrive_everywhere(std::uint64_t* barrier, unsigned cluster) {
  __syncwarp();
  if constexpr (kWarpArrivals == 1) {
    const unsigned lane = threadIdx.x % 32;
    if (lane < cluster) barrier_arrive_at(barrier, lane);
  } else {
    for (unsigned rank = 0; rank < cluster; ++rank) barrier_arrive_at(barrier, rank);
  }
}
/// Waits until the phase of this parity is complete.
__device__ __forceinline__ void barrier_wait(std::uint64_t* barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}
/// A hardware barrier among `threads` threads; id 0 is __syncthreads().
template <int threads>
__device__ __forceinline__ void named_barrier(int id) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(threads) : "memory");
}

/// Orders this thread's ordinary writes to shared memory before later reads by the tensor cores or
/// the copy engine; a barrier must follow.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ unsigned cluster_rank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/// Waits for all threads of the cluster.
__device__ __forceinline__ void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

using carousel::cuda::grow_registers;
using carousel::cuda::shrink_registers;

// --- copies ------------------------------------------------------------------------------------

/// How long the second-level cache should keep what a copy brings (createpolicy's encodings).
enum class Keep : std::uint64_t { kNormal = 0x1000000000000000, kBriefly = 0x12f0000000000000 };

/// Box at (x, y, z, w) of a tensor of rank 4 into shared memory; what lies outside is zero.
__device__ __forceinline__ void load_box(void* to, const CUtensorMap& map, std::uint64_t* barrier,
                                         int x, int y, int z, int w, Keep keep = Keep::kNormal) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z), "r"(w),
      "l"(static_cast<std::uint64_t>(keep))
      : "memory");
}
/// The same into every CTA of the cluster whose bit is set in `ctas`, at this CTA's addresses of
/// the data and of the barrier.
__device__ __forceinline__ void load_box_everywhere(void* to, const CUtensorMap& map,
                                                    std::uint64_t* barrier, unsigned ctas, int x,
                                                    int y, int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%4, %5, %6, %7}], [%2], %3;" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "h"(static_cast<std::uint16_t>(ctas)), "r"(x),
      "r"(y), "r"(z), "r"(w)
      : "memory");
}
/// Shared memory into the box at (x, y, z, w); what lies outside is dropped.
__device__ __forceinline__ void store_box(const CUtensorMap& map, const void* from, int x, int y,
                                          int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(
          &map),
      "r"(shared_address(from)), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}
/// `bytes` (a multiple of 16) from global to shared memory.
__device__ __forceinline__ void load_bytes(void* to, const void* from, unsigned bytes,
                                           std::uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}
__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
__device__ __forceinline__ void commit_stores() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// Waits until all but `pending` of this thread's store groups have read their shared memory.
template <int pending>
__device__ __forceinline__ void wait_stores_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}
__device__ __forceinline__ void wait_stores() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// --- tiles in shared memory --------------------------------------------------------------------
// A panel is R rows of 64 bf16 (128 bytes), its 16-byte pieces swizzled: piece p of row r lies at
// p ^ (r mod 8). Panels start at multiples of 1024 bytes. Wider tiles are several panels.

inline constexpr int kPanelColumns = 64;
inline constexpr int kPanelRowBytes = 128;

/// Byte offset of 16-byte piece `piece` of row `row` in a panel.
__device__ __forceinline__ std::uint32_t panel_offset(int row, int piece) {
  return static_cast<std::uint32_t>(row * kPanelRowBytes + ((piece ^ (row & 7)) << 4));
}

/// Keeps the compiler from computing what depends on `x` earlier than here, where registers are
/// scarce.
__device__ __forceinline__ std::uint32_t computed_here(std::uint32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}
__device__ __forceinline__ std::uint32_t load_word(std::uint32_t address) {
  std::uint32_t x;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(address) : "memory");
  return x;
}
__device__ __forceinline__ float2 load_floats(std::uint32_t address) {
  float2 x;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(address) : "memory");
  return x;
}
__device__ __forceinline__ void store_word(std::uint32_t address, std::uint32_t x) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(x) : "memory");
}

/// Matrix descriptor of an operand in panels, `panel_stride` bytes apart along the dimension that
/// is contiguous in memory where that is M or N ("MN-major"). K-major operands lie within one
/// panel.
__device__ __forceinline__ std::uint64_t operand(std::uint32_t address, int panel_stride = 0) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  constexpr std::uint64_t kEightRows = std::uint64_t{1024 >> 4} << 32;
  return kSwizzle128 | kEightRows |
         (static_cast<std::uint64_t>(static_cast<unsigned>(panel_stride) >> 4) << 16) |
         ((address & 0x3ffffu) >> 4);
}
/// Steps a descriptor on by `bytes`.
__device__ __forceinline__ std::uint64_t advance(std::uint64_t descriptor, int bytes) {
  return descriptor + static_cast<std::uint64_t>(static_cast<unsigned>(bytes) >> 4);
}

__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&r)[4],
                                                         std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void store_matrices(std::uint32_t address, std::uint32_t r0,
                                               std::uint32_t r1, std::uint32_t r2,
                                               std::uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(r0), "r"(r1), "r"(r2), "r"(r3)
               : "memory");
}
__device__ __forceinline__ void store_matrices_transposed(std::uint32_t address, std::uint32_t r0,
                                                          std::uint32_t r1, std::uint32_t r2,
                                                          std::uint32_t r3) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(r0), "r"(r1), "r"(r2), "r"(r3)
      : "memory");
}

/// Two floats as bf16x2, `low` in the lower half.
__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  std::uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
__device__ __forceinline__ float2 unpack(std::uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

/// x = x·a + b in x's own register: accumulators between two products must not move, or the
/// assembler runs out of aligned runs of registers and serialises every product of the kernel.
__device__ __forceinline__ void multiply_add_in_place(float& x, float a, float b) {
  asm volatile("fma.rn.f32 %0, %0, %1, %2;" : "+f"(x) : "f"(a), "f"(b));
}
__device__ __forceinline__ void multiply_in_place(float& x, float a) {
  asm volatile("mul.rn.f32 %0, %0, %1;" : "+f"(x) : "f"(a));
}

/// 2^x by the special-function unit; 0 far below, relative error 2^-22.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace carousel::mlstm::hopper
