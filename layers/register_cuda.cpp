#include "core/tensor/device.h"
#include "layers/register.h"

namespace carousel {

void register_layer_cuda_kernels() {
  if (!has_backend(DeviceType::kCuda)) return;
}

}  // namespace carousel
