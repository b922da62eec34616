#include "layers/mlstm/cpu/kernels.h"
#include "layers/register.h"

namespace carousel {

void register_layer_cpu_kernels() {
  mlstm::register_cpu_recurrent();
  mlstm::register_cpu_chunkwise_fwd();
  mlstm::register_cpu_chunkwise_bwd();
}

}  // namespace carousel
