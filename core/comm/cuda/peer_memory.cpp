#include "core/comm/cuda/peer_memory.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <random>

#include "core/comm/cuda/tree_sum.h"
#include "core/cuda/error.h"
#include "core/cuda/stream.h"

namespace carousel::comm {
namespace {

// A counter each, so that two writers do not share a line.
constexpr std::size_t kCounterStride = 64 / sizeof(std::uint32_t);

std::size_t counters_bytes(int world_size) {
  const auto n = static_cast<std::size_t>(world_size);
  return n * n * 2 * kCounterStride * sizeof(std::uint32_t);
}

// A new block of shared memory under a name that nobody else has, until this is destroyed; whoever
// has mapped it keeps it.
class SharedName {
 public:
  explicit SharedName(std::size_t bytes) {
    std::random_device random;
    name_ = fmt::format("/carousel-{}-{:08x}{:08x}", ::getpid(), random(), random());
    const int fd = ::shm_open(name_.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
    error_ = fd < 0 ? errno : ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
    if (fd >= 0) ::close(fd);
  }
  ~SharedName() { ::shm_unlink(name_.c_str()); }
  SharedName(const SharedName&) = delete;
  SharedName& operator=(const SharedName&) = delete;

  /// Empty if the system has refused.
  std::string name() const { return error_ == 0 ? name_ : ""; }
  std::string refusal() const { return std::strerror(error_); }

 private:
  std::string name_;
  int error_ = 0;
};

void* map_shared(const std::string& name, std::size_t bytes) {
  const int fd = ::shm_open(name.c_str(), O_RDWR, 0);
  if (fd < 0) return nullptr;
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  return memory == MAP_FAILED ? nullptr : memory;
}

// "" or, of the first rank that has a problem, what it is.
std::string first_problem(const std::vector<std::string>& problems) {
  for (std::size_t r = 0; r < problems.size(); ++r) {
    if (!problems[r].empty()) return fmt::format("rank {}: {}", r, problems[r]);
  }
  return {};
}

std::string text_of(cudaError_t status) {
  cudaGetLastError();  // dealt with here
  return cudaGetErrorString(status);
}

}  // namespace

std::unique_ptr<PeerMemory> PeerMemory::connect(int rank, int world_size, Device device,
                                                const Gather& gather, std::string& problem) {
  std::unique_ptr<PeerMemory> peers(new PeerMemory(rank, world_size, device));
  std::optional<SharedName> own;
  if (rank == 0) own.emplace(counters_bytes(world_size));
  const std::string name = gather(own ? own->name() : "")[0];
  if (world_size > kMaxTreeRanks) {
    problem = fmt::format("more than {} ranks", kMaxTreeRanks);
  } else if (name.empty()) {
    problem = own ? own->refusal() : "rank 0 has no shared memory";
  } else {
    problem = peers->set_up(name);
  }
  problem = first_problem(gather(problem));
  if (!problem.empty()) peers.reset();
  return peers;
}

std::string PeerMemory::set_up(const std::string& name) {
  // The program starts without a driver too, so that it is not linked.
  void* driver = ::dlopen("libcuda.so.1", RTLD_NOW);
  void* function = driver == nullptr ? nullptr : ::dlsym(driver, "cuStreamBatchMemOp_v2");
  if (function == nullptr) return "the driver is too old for waits in a stream";
  std::memcpy(&batch_mem_op_, &function, sizeof function);

  const std::size_t bytes = counters_bytes(world_size_);
  void* memory = map_shared(name, bytes);
  if (memory == nullptr) return "no shared memory with rank 0: it is on another host";
  const cuda::Stream compute(device_);
  if (const cudaError_t status = cudaHostRegister(memory, bytes, cudaHostRegisterMapped);
      status != cudaSuccess) {
    ::munmap(memory, bytes);
    return text_of(status);
  }
  counters_ = static_cast<std::uint32_t*>(memory);
  void* on_device = nullptr;
  CUDA_CHECK(cudaHostGetDevicePointer(&on_device, memory, 0));
  counters_on_device_ = reinterpret_cast<CUdeviceptr>(on_device);
  return {};
}

PeerMemory::~PeerMemory() {
  const cuda::Stream compute(device_);
  for (Shared& shared : shared_) close(shared);
  close(inbox_);
  if (counters_ == nullptr) return;
  cudaHostUnregister(counters_);
  ::munmap(counters_, counters_bytes(world_size_));
}

std::string PeerMemory::share(const Tensor& t, std::size_t largest, const Gather& gather) {
  Shared shared;
  if (std::string problem = share_one(t, gather, shared); !problem.empty()) return problem;
  const std::size_t needed =
      largest / static_cast<std::size_t>(world_size_) * static_cast<std::size_t>(world_size_ - 1);
  if (needed > 0) {
    CAROUSEL_CHECK(!inbox_.tensor.defined(), "a second tensor to exchange");
    const RoleScope role(Role::kWorkspace);
    const std::size_t bytes = std::max(needed, kLeast);
    const auto inbox = Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::kU8, device_);
    if (std::string problem = share_one(inbox, gather, inbox_); !problem.empty()) {
      close(shared);
      return problem;
    }
  }
  shared_.push_back(std::move(shared));
  return {};
}

std::string PeerMemory::share_one(const Tensor& t, const Gather& gather, Shared& shared) {
  const cuda::Stream compute(device_);
  std::string mine;
  cudaIpcMemHandle_t handle{};
  std::string problem = "a small tensor";
  if (t.bytes() >= kLeast) {
    const cudaError_t status = cudaIpcGetMemHandle(&handle, t.raw());
    problem = status == cudaSuccess ? "" : text_of(status);
    if (problem.empty()) mine.assign(reinterpret_cast<const char*>(&handle), sizeof handle);
  }
  const std::vector<std::string> handles = gather(mine);
  shared.tensor = t;
  shared.at.assign(static_cast<std::size_t>(world_size_), nullptr);
  for (int r = 0; problem.empty() && r < world_size_; ++r) {
    const std::string& theirs = handles[static_cast<std::size_t>(r)];
    void* address = t.raw();
    if (theirs.size() != sizeof handle) {
      problem = fmt::format("rank {} shares no memory", r);
    } else if (r != rank_) {
      std::memcpy(&handle, theirs.data(), sizeof handle);
      const cudaError_t status =
          cudaIpcOpenMemHandle(&address, handle, cudaIpcMemLazyEnablePeerAccess);
      if (status != cudaSuccess) problem = fmt::format("rank {}: {}", r, text_of(status));
    }
    if (problem.empty()) {
      shared.at[static_cast<std::size_t>(r)] = static_cast<std::byte*>(address);
    }
  }
  problem = first_problem(gather(problem));
  if (!problem.empty()) close(shared);
  return problem;
}

void PeerMemory::close(Shared& shared) const {
  for (int r = 0; r < static_cast<int>(shared.at.size()); ++r) {
    std::byte* const address = shared.at[static_cast<std::size_t>(r)];
    if (r != rank_ && address != nullptr) cudaIpcCloseMemHandle(address);
  }
  shared = {};
}

const PeerMemory::Shared* PeerMemory::shared_with(const Tensor& t) const {
  for (const Shared& shared : shared_) {
    if (shared.tensor.shares_storage(t)) return &shared;
  }
  return nullptr;
}

bool PeerMemory::covers(const Tensor& t) const {
  return t.numel() % world_size_ == 0 && shared_with(t) != nullptr;
}

std::size_t PeerMemory::counter(int reader, int writer, Phase phase) const {
  return static_cast<std::size_t>((reader * world_size_ + writer) * 2 + phase) * kCounterStride;
}

// Tells the others that this rank has come to a phase, and waits until they have.
void PeerMemory::meet(Phase phase, cudaStream_t stream) {
  std::vector<CUstreamBatchMemOpParams> ops;
  const auto add = [&](CUstreamBatchMemOpType operation, std::size_t at) {
    CUstreamBatchMemOpParams op{};
    op.operation = operation;
    const CUdeviceptr address = counters_on_device_ + at * sizeof(std::uint32_t);
    if (operation == CU_STREAM_MEM_OP_WRITE_VALUE_32) {
      op.writeValue.address = address;
      op.writeValue.value = turn_;
      op.writeValue.flags = CU_STREAM_WRITE_VALUE_DEFAULT;  // behind all that was written before
    } else {
      op.waitValue.address = address;
      op.waitValue.value = turn_;
      op.waitValue.flags = CU_STREAM_WAIT_VALUE_GEQ;
    }
    ops.push_back(op);
  };
  for (int r = 0; r < world_size_; ++r) {
    if (r != rank_) add(CU_STREAM_MEM_OP_WRITE_VALUE_32, counter(r, rank_, phase));
  }
  for (int r = 0; r < world_size_; ++r) {
    if (r != rank_) add(CU_STREAM_MEM_OP_WAIT_VALUE_32, counter(rank_, r, phase));
  }
  const CUresult result = batch_mem_op_(stream, static_cast<unsigned>(ops.size()), ops.data(), 0);
  CAROUSEL_CHECK(result == CUDA_SUCCESS, "cuStreamBatchMemOp: error {}", static_cast<int>(result));
}

std::vector<const void*> PeerMemory::exchange(const Tensor& t, cudaStream_t stream) {
  const std::size_t bytes = piece_bytes(t);
  CAROUSEL_CHECK(covers(t) && inbox_.tensor.defined() &&
                     bytes * static_cast<std::size_t>(world_size_ - 1) <= inbox_.tensor.bytes(),
                 "no room to exchange {}", describe(t));
  const auto place = [&](int reader, int writer) {
    const int before = writer < reader ? writer : writer - 1;
    return inbox_.at[static_cast<std::size_t>(reader)] + bytes * static_cast<std::size_t>(before);
  };
  ++turn_;
  meet(kEntered, stream);  // all have read what the exchange before brought
  std::vector<const void*> pieces(static_cast<std::size_t>(world_size_), piece(t, rank_));
  for (int step = 1; step < world_size_; ++step) {
    const int r = (rank_ + step) % world_size_;  // not all to one
    CUDA_CHECK(
        cudaMemcpyAsync(place(r, rank_), piece(t, r), bytes, cudaMemcpyDeviceToDevice, stream));
    pieces[static_cast<std::size_t>(r)] = place(rank_, r);
  }
  meet(kWritten, stream);
  return pieces;
}

void PeerMemory::gather(const Tensor& t, cudaStream_t stream) {
  const Shared* shared = shared_with(t);
  CAROUSEL_CHECK(shared != nullptr, "{} is not shared", describe(t));
  const std::ptrdiff_t offset = piece(t, rank_) - static_cast<std::byte*>(shared->tensor.raw());
  ++turn_;
  meet(kEntered, stream);  // nobody uses the old values any more
  for (int step = 1; step < world_size_; ++step) {
    const auto r = static_cast<std::size_t>((rank_ + step) % world_size_);
    CUDA_CHECK(cudaMemcpyAsync(shared->at[r] + offset, piece(t, rank_), piece_bytes(t),
                               cudaMemcpyDeviceToDevice, stream));
  }
  meet(kWritten, stream);
}

void PeerMemory::release_waits() noexcept {
  // The comparison is cyclic: this is ahead of all that can be waited for.
  const std::uint32_t ahead = turn_ + (std::uint32_t{1} << 30);
  for (int r = 0; r < world_size_; ++r) {
    for (const Phase phase : {kEntered, kWritten}) {
      std::atomic_ref(counters_[counter(rank_, r, phase)]).store(ahead);
    }
  }
}

}  // namespace carousel::comm
