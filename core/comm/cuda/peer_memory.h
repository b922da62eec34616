// The memory of the other GPUs of a host: exchanges by the copy engines, which take no
// multiprocessor from the kernels that run meanwhile.
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor/tensor.h"

namespace carousel::comm {

/// Every rank writes straight into the others' tensors. Counters in host memory that all ranks
/// share tell what is ready and what has come: the streams themselves write them and wait for them,
/// so that no host waits, and a host can end the waits for a rank that has died.
class PeerMemory {
 public:
  /// Bytes of the smallest tensor that can be shared: the driver packs smaller blocks together, and
  /// hands out the whole of such a pack.
  static constexpr std::size_t kLeast = std::size_t{2} << 20;
  /// The strings of all ranks, in order; collective.
  using Gather = std::function<std::vector<std::string>(const std::string&)>;

  /// Collective. On all ranks nullptr, with the reason in `problem`, where one of them cannot: on
  /// several hosts, say.
  static std::unique_ptr<PeerMemory> connect(int rank, int world_size, Device device,
                                             const Gather& gather, std::string& problem);
  /// No exchange of this rank may be under way.
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  /// Collective: makes the ranks' tensors, all of one size and each the whole of its storage, known
  /// to each other, and holds them. With `largest` > 0, parts of up to so many bytes can be
  /// exchanged. Returns the reason, on all ranks, where one of them cannot; else nothing.
  std::string share(const Tensor& t, std::size_t largest, const Gather& gather);
  /// Whether t is a part of a tensor that was shared, which divides among the ranks.
  bool covers(const Tensor& t) const;

  /// t (N) of each rank holds a piece of N/world_size elements for every rank. Returns where those
  /// for this one are, by the rank they come from, once `stream` has come so far and until the
  /// next exchange.
  std::vector<const void*> exchange(const Tensor& t, cudaStream_t stream);
  /// t (N): every rank's own piece of N/world_size elements is copied to all.
  void gather(const Tensor& t, cudaStream_t stream);

  /// Ends the waits of this rank's streams that are under way; what they waited for is then
  /// undefined. From any thread.
  void release_waits() noexcept;

 private:
  struct Shared {
    Tensor tensor;
    std::vector<std::byte*> at;  // in this process's addresses, by rank
  };
  enum Phase { kEntered, kWritten };

  PeerMemory(int rank, int world_size, Device device)
      : rank_(rank), world_size_(world_size), device_(device) {}
  std::string set_up(const std::string& name);
  std::string share_one(const Tensor& t, const Gather& gather, Shared& shared);
  void close(Shared& shared) const;
  const Shared* shared_with(const Tensor& t) const;
  std::size_t counter(int reader, int writer, Phase phase) const;
  void meet(Phase phase, cudaStream_t stream);
  std::size_t piece_bytes(const Tensor& t) const {
    return t.bytes() / static_cast<std::size_t>(world_size_);
  }
  std::byte* piece(const Tensor& t, int r) const {
    return static_cast<std::byte*>(t.raw()) + piece_bytes(t) * static_cast<std::size_t>(r);
  }

  int rank_, world_size_;
  Device device_;
  PFN_cuStreamBatchMemOp_v11070 batch_mem_op_ = nullptr;
  std::uint32_t* counters_ = nullptr;   // in shared memory
  CUdeviceptr counters_on_device_ = 0;  // the same
  std::atomic<std::uint32_t> turn_{0};  // exchanges and gathers begun
  std::vector<Shared> shared_;
  Shared inbox_;  // pieces that come, those of ranks before this one first
};

}  // namespace carousel::comm
