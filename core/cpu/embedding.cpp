#include "core/kernels/embedding.h"

#include <cstring>

#include "core/base/parallel.h"
#include "core/cpu/dispatch.h"
#include "core/cpu/kernels.h"

namespace carousel::cpu {
namespace {

void forward(const EmbeddingForwardArgs& args) {
  const std::int32_t* ids = args.ids.data<std::int32_t>();
  const auto row = static_cast<std::size_t>(args.weight.dim(1)) * size_of(args.weight.dtype());
  const auto* weight = static_cast<const std::byte*>(args.weight.raw());
  auto* out = static_cast<std::byte*>(args.out.raw());
  parallel_for(args.ids.numel(), 256, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      std::memcpy(out + static_cast<std::size_t>(t) * row,
                  weight + static_cast<std::size_t>(ids[t]) * row, row);
    }
  });
}

// Columns are split over threads, so that each element of dweight has one owner and one order.
void backward(const EmbeddingBackwardArgs& args) {
  dispatch_floating("embedding_bwd", args.dout.dtype(), [&]<class T>() {
    using C = compute_t<T>;
    const std::int32_t* ids = args.ids.data<std::int32_t>();
    const T* dout = args.dout.data<T>();
    C* dweight = args.dweight.data<C>();
    const std::int64_t n = args.ids.numel();
    const std::int64_t dim = args.dweight.dim(1);
    parallel_for(dim, 16, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = 0; t < n; ++t) {
        const T* from = dout + t * dim;
        C* to = dweight + ids[t] * dim;
#pragma omp simd
        for (std::int64_t j = begin; j < end; ++j) to[j] += static_cast<C>(from[j]);
      }
    });
  });
}

}  // namespace

void register_embedding() {
  embedding_fwd.set(DeviceType::kCpu, forward);
  embedding_bwd.set(DeviceType::kCpu, backward);
}

}  // namespace carousel::cpu
