#include "train/checkpoint/snapshot.h"

#include <cstring>

#include "core/base/parallel.h"

namespace carousel {
namespace {

// One core alone does not use the memory's bandwidth.
void copy_on_host(const Tensor& from, const Tensor& to) {
  constexpr std::int64_t kGrain = 1 << 20;
  auto* out = static_cast<std::byte*>(to.raw());
  const auto* in = static_cast<const std::byte*>(from.raw());
  parallel_for(static_cast<std::int64_t>(from.bytes()), kGrain,
               [&](std::int64_t begin, std::int64_t end) {
                 std::memcpy(out + begin, in + begin, static_cast<std::size_t>(end - begin));
               });
}

}  // namespace

Snapshot::Snapshot(std::vector<Tensor> sources) {
  for (Tensor& source : sources) {
    Pair& pair = pairs_.emplace_back();
    pair.copy = Tensor::zeros(source.shape(), source.dtype());
    pair.pinned =
        backend_for(source.device().type).pin(source.device(), pair.copy.raw(), pair.copy.bytes());
    pair.source = std::move(source);
  }
}

Snapshot::~Snapshot() {
  for (const Pair& pair : pairs_) {
    const Device device = pair.source.device();
    if (!pair.pinned) continue;
    if (pair.copying) pair.copying->wait();
    backend_for(device.type).unpin(device, pair.copy.raw());
  }
}

void Snapshot::take() {
  for (Pair& pair : pairs_) {
    if (pair.source.device().type == DeviceType::kCpu) {
      copy_on_host(pair.source, pair.copy);
    } else if (pair.pinned) {
      start_host_copy(pair.source.device(),
                      {.from = pair.source, .to = pair.copy, .copy = &pair.copying});
    } else {
      pair.copy.copy_(pair.source);
    }
  }
}

void Snapshot::hold_up() {
  for (const Pair& pair : pairs_) {
    if (pair.copying) pair.copying->hold_up();
  }
}

void Snapshot::wait() {
  for (const Pair& pair : pairs_) {
    if (pair.copying) pair.copying->wait();
  }
}

const Tensor& Snapshot::of(const Tensor& source) const {
  for (const Pair& pair : pairs_) {
    if (pair.source.raw() == source.raw()) return pair.copy;
  }
  throw InternalError("no snapshot is taken of {}", describe(source));
}

}  // namespace carousel
