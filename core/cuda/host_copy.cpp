#include "core/kernels/host_copy.h"

#include <array>
#include <mutex>

#include "core/cuda/backend.h"
#include "core/cuda/error.h"
#include "core/cuda/stream.h"

namespace carousel::cuda {
namespace {

// The stream of these copies, one a device; never destroyed, as the compute streams.
cudaStream_t copy_stream(Device device) {
  static auto& mutex = *new std::mutex;
  static auto& streams = *new std::array<cudaStream_t, 64>{};
  const std::lock_guard lock(mutex);
  cudaStream_t& stream = streams.at(static_cast<std::size_t>(device.index));
  if (stream == nullptr) CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

class CudaHostCopy final : public HostCopy {
 public:
  CudaHostCopy(const Tensor& from, const Tensor& to) : device_(from.device()) {
    const Stream compute(device_);
    const cudaStream_t stream = copy_stream(device_);
    CUDA_CHECK(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming));
    CUDA_CHECK(cudaEventRecord(done_, compute.handle()));
    CUDA_CHECK(cudaStreamWaitEvent(stream, done_));
    CUDA_CHECK(cudaMemcpyAsync(to.raw(), from.raw(), from.bytes(), cudaMemcpyDeviceToHost, stream));
    CUDA_CHECK(cudaEventRecord(done_, stream));
  }
  ~CudaHostCopy() override { cudaEventDestroy(done_); }
  CudaHostCopy(const CudaHostCopy&) = delete;
  CudaHostCopy& operator=(const CudaHostCopy&) = delete;

  void hold_up() override {
    const Stream compute(device_);
    CUDA_CHECK(cudaStreamWaitEvent(compute.handle(), done_));
  }
  void wait() override { CUDA_CHECK(cudaEventSynchronize(done_)); }

 private:
  Device device_;
  cudaEvent_t done_ = nullptr;
};

void start(const StartHostCopyArgs& args) {
  CAROUSEL_CHECK(args.to.device() == kCpu && args.to.bytes() == args.from.bytes(),
                 "[start_host_copy] {} to {}", describe(args.from), describe(args.to));
  *args.copy = std::make_unique<CudaHostCopy>(args.from, args.to);
}

}  // namespace

void register_host_copy() { start_host_copy.set(DeviceType::kCuda, start); }

}  // namespace carousel::cuda
