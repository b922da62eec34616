#include "core/tensor/device.h"
#include "layers/mlstm/cuda/kernels.h"
#include "layers/register.h"
#include "layers/slstm/cuda/kernels.h"

namespace carousel {

void register_layer_cuda_kernels() {
  if (!has_backend(DeviceType::kCuda)) return;
  slstm::register_cuda_backward();
  slstm::register_cuda_forward();
  mlstm::register_cuda_recurrent();
  mlstm::register_cuda_blocked_fwd();
  mlstm::register_cuda_blocked_bwd();
}

}  // namespace carousel
