#include "core/cuda/timer.h"

#include <array>

#include "core/cuda/error.h"
#include "core/cuda/stream.h"

namespace carousel::cuda {

double time_ms(Device device, const std::function<void()>& prepare,
               const std::function<void()>& work) {
  const Stream stream(device);
  std::array<cudaEvent_t, 2> events{};
  for (cudaEvent_t& event : events) CUDA_CHECK(cudaEventCreate(&event));
  prepare();
  CUDA_CHECK(cudaEventRecord(events[0], stream.handle()));
  work();
  CUDA_CHECK(cudaEventRecord(events[1], stream.handle()));
  CUDA_CHECK(cudaEventSynchronize(events[1]));
  float ms = 0.0f;
  CUDA_CHECK(cudaEventElapsedTime(&ms, events[0], events[1]));
  for (const cudaEvent_t event : events) CUDA_CHECK(cudaEventDestroy(event));
  return ms;
}

}  // namespace carousel::cuda
