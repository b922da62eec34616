#include "core/kernels/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/math.h"
#include "core/base/parallel.h"
#include "core/cpu/dispatch.h"
#include "core/cpu/kernels.h"

namespace carousel::cpu {
namespace {

// One row of capped logits in compute precision.
template <class T, class C>
void cap_row(const T* logits, std::int64_t vocab, C cap, C* z) {
  if (cap > 0) {
    const C inverse = C{1} / cap;
#pragma omp simd
    for (std::int64_t v = 0; v < vocab; ++v) {
      z[v] = cap * math::tanh(static_cast<C>(logits[v]) * inverse);
    }
  } else {
#pragma omp simd
    for (std::int64_t v = 0; v < vocab; ++v) z[v] = static_cast<C>(logits[v]);
  }
}

template <class T>
void forward(const CrossEntropyForwardArgs& args) {
  using C = compute_t<T>;
  const std::int64_t vocab = args.logits.dim(1);
  const T* logits = args.logits.data<T>();
  const std::int32_t* target = args.target.data<std::int32_t>();
  C* loss = args.loss.data<C>();
  C* lse = args.lse.data<C>();
  std::uint8_t* correct = args.correct.data_or_null<std::uint8_t>();
  const auto cap = static_cast<C>(args.cap);
  parallel_for(args.logits.dim(0), kElementwiseGrain / vocab + 1,
               [&](std::int64_t begin, std::int64_t end) {
                 std::vector<C> z(static_cast<std::size_t>(vocab));
                 for (std::int64_t r = begin; r < end; ++r) {
                   cap_row(logits + r * vocab, vocab, cap, z.data());
                   C largest = z[0];
#pragma omp simd reduction(max : largest)
                   for (std::int64_t v = 0; v < vocab; ++v) {
                     const C value = z[static_cast<std::size_t>(v)];
                     largest = value > largest ? value : largest;
                   }
                   C total{0};
#pragma omp simd reduction(+ : total)
                   for (std::int64_t v = 0; v < vocab; ++v) {
                     total += math::exp(z[static_cast<std::size_t>(v)] - largest);
                   }
                   lse[r] = largest + std::log(total);
                   const bool ignored = target[r] == kIgnoreTarget;
                   const C chosen = ignored ? C{0} : z[static_cast<std::size_t>(target[r])];
                   loss[r] = ignored ? C{0} : lse[r] - chosen;
                   if (correct != nullptr) {
                     const auto first = std::find(z.begin(), z.end(), largest) - z.begin();
                     correct[r] = !ignored && first == target[r];
                   }
                 }
               });
}

template <class T>
void backward(const CrossEntropyBackwardArgs& args) {
  using C = compute_t<T>;
  const std::int64_t vocab = args.logits.dim(1);
  const T* logits = args.logits.data<T>();
  const std::int32_t* target = args.target.data<std::int32_t>();
  const C* lse = args.lse.data<C>();
  const C* dloss = args.dloss.data<C>();
  T* dlogits = args.dlogits.data<T>();
  const auto cap = static_cast<C>(args.cap);
  const C inverse = cap > 0 ? C{1} / cap : C{0};  // without a cap the slope 1 − (z·0)² is 1
  parallel_for(
      args.logits.dim(0), kElementwiseGrain / vocab + 1, [&](std::int64_t begin, std::int64_t end) {
        std::vector<C> z(static_cast<std::size_t>(vocab));
        for (std::int64_t r = begin; r < end; ++r) {
          T* out = dlogits + r * vocab;
          if (target[r] == kIgnoreTarget) {
            std::fill_n(out, vocab, T(0.0f));
            continue;
          }
          cap_row(logits + r * vocab, vocab, cap, z.data());
          const C scale = dloss[r];
          const auto at = static_cast<std::size_t>(target[r]);
          const C chosen = z[at];
          const C lse_row = lse[r];
#pragma omp simd
          for (std::int64_t v = 0; v < vocab; ++v) {
            const C value = z[static_cast<std::size_t>(v)];
            const C t = value * inverse;
            out[v] = round_to<T>(scale * math::exp(value - lse_row) * (C{1} - t * t));
          }
          const C t = chosen * inverse;
          out[at] = round_to<T>(scale * (math::exp(chosen - lse_row) - C{1}) * (C{1} - t * t));
        }
      });
}

}  // namespace

void register_cross_entropy() {
  cross_entropy_fwd.set(DeviceType::kCpu, [](const CrossEntropyForwardArgs& args) {
    dispatch_floating("cross_entropy_fwd", args.logits.dtype(),
                      [&]<class T>() { forward<T>(args); });
  });
  cross_entropy_bwd.set(DeviceType::kCpu, [](const CrossEntropyBackwardArgs& args) {
    dispatch_floating("cross_entropy_bwd", args.logits.dtype(),
                      [&]<class T>() { backward<T>(args); });
  });
}

}  // namespace carousel::cpu
