#include "core/tensor/device.h"
#include "layers/register.h"
#include "layers/slstm/cuda/kernels.h"

namespace carousel {

void register_layer_cuda_kernels() {
  if (!has_backend(DeviceType::kCuda)) return;
  slstm::register_cuda_backward();
  slstm::register_cuda_forward();
}

}  // namespace carousel
