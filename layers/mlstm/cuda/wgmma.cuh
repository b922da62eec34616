// Warpgroup matrix products D (64 × N, float32) += A (64 × 16) · B (16 × N) on bf16 operands, one
// struct per N. A comes from shared memory (ss) or registers (rs), B from shared memory; each is
// K-major (contiguous along the contraction) or MN-major. Thread t of the warpgroup holds in
// d[4j + 2h + e] row 16(t/32) + (t mod 32)/4 + 8h, column 8j + 2(t mod 4) + e, and of A in a[2p +
// h] the pair of row … + 8h, columns 8p + 2(t mod 4) + {0, 1}: D's layout, so that a product's
// result can be the next one's operand.
#pragma once

#include <cstdint>

namespace carousel::mlstm::hopper {

enum class Major { kK, kMn };

/// Before the first product: orders registers written by ordinary instructions.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits until at most `pending` committed groups are unfinished.
template <int pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

/// ss(d, a, b, add): descriptors a and b; D is overwritten unless `add`.
template <int N>
struct Wgmma;

// The instruction names every register, so each N needs its own list.
#define CAROUSEL_F4(d, i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define CAROUSEL_F16(d, i) \
  CAROUSEL_F4(d, i), CAROUSEL_F4(d, (i) + 4), CAROUSEL_F4(d, (i) + 8), CAROUSEL_F4(d, (i) + 12)
#define CAROUSEL_F32(d, i) CAROUSEL_F16(d, i), CAROUSEL_F16(d, (i) + 16)
#define CAROUSEL_F64(d, i) CAROUSEL_F32(d, i), CAROUSEL_F32(d, (i) + 32)

template <>
struct Wgmma<64> {
  template <Major ma, Major mb>
  static __device__ __forceinline__ void ss(float (&d)[32], std::uint64_t a, std::uint64_t b,
                                            bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, add, 1, 1, %35, %36;\n}\n"
        : CAROUSEL_F32(d, 0)
        : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(static_cast<int>(ma)),
          "n"(static_cast<int>(mb)));
  }
  template <Major mb>
  static __device__ __forceinline__ void rs(float (&d)[32], const std::uint32_t (&a)[4],
                                            std::uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, add, 1, 1, %38;\n}\n"
        : CAROUSEL_F32(d, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
          "n"(static_cast<int>(mb)));
  }
};

template <>
struct Wgmma<72> {
  template <Major ma, Major mb>
  static __device__ __forceinline__ void ss(float (&d)[36], std::uint64_t a, std::uint64_t b,
                                            bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %38, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n72k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35}, "
        "%36, %37, add, 1, 1, %39, %40;\n}\n"
        : CAROUSEL_F32(d, 0), CAROUSEL_F4(d, 32)
        : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(static_cast<int>(ma)),
          "n"(static_cast<int>(mb)));
  }
  template <Major mb>
  static __device__ __forceinline__ void rs(float (&d)[36], const std::uint32_t (&a)[4],
                                            std::uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %41, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n72k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35}, "
        "{%36, %37, %38, %39}, %40, add, 1, 1, %42;\n}\n"
        : CAROUSEL_F32(d, 0), CAROUSEL_F4(d, 32)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
          "n"(static_cast<int>(mb)));
  }
};

template <>
struct Wgmma<128> {
  template <Major ma, Major mb>
  static __device__ __forceinline__ void ss(float (&d)[64], std::uint64_t a, std::uint64_t b,
                                            bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, add, 1, 1, %67, %68;\n}\n"
        : CAROUSEL_F64(d, 0)
        : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(static_cast<int>(ma)),
          "n"(static_cast<int>(mb)));
  }
  template <Major mb>
  static __device__ __forceinline__ void rs(float (&d)[64], const std::uint32_t (&a)[4],
                                            std::uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, add, 1, 1, %70;\n}\n"
        : CAROUSEL_F64(d, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
          "n"(static_cast<int>(mb)));
  }
};

template <>
struct Wgmma<256> {
  template <Major ma, Major mb>
  static __device__ __forceinline__ void ss(float (&d)[128], std::uint64_t a, std::uint64_t b,
                                            bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "
        "%111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
        "%127}, "
        "%128, %129, add, 1, 1, %131, %132;\n}\n"
        : CAROUSEL_F64(d, 0), CAROUSEL_F64(d, 64)
        : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(static_cast<int>(ma)),
          "n"(static_cast<int>(mb)));
  }
  template <Major mb>
  static __device__ __forceinline__ void rs(float (&d)[128], const std::uint32_t (&a)[4],
                                            std::uint64_t b, bool add) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %133, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "
        "%111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
        "%127}, "
        "{%128, %129, %130, %131}, %132, add, 1, 1, %134;\n}\n"
        : CAROUSEL_F64(d, 0), CAROUSEL_F64(d, 64)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
          "n"(static_cast<int>(mb)));
  }
};

#undef CAROUSEL_F4
#undef CAROUSEL_F16
#undef CAROUSEL_F32
#undef CAROUSEL_F64

}  // namespace carousel::mlstm::hopper
