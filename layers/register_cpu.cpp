#include "layers/mlstm/cpu/kernels.h"
#include "layers/mlstm/planned_memory.h"
#include "layers/register.h"
#include "layers/slstm/cpu/kernels.h"

namespace carousel {

void register_layer_cpu_kernels() {
  mlstm::register_cpu_recurrent();
  mlstm::register_cpu_chunkwise_fwd();
  mlstm::register_cpu_chunkwise_bwd();
  mlstm::register_planned_memory();
  slstm::register_cpu_backward();
  slstm::register_cpu_forward();
}

}  // namespace carousel
