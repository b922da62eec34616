// The registration functions of the mLSTM cell's CPU kernels, one a form.
#pragma once

namespace carousel::mlstm {

void register_cpu_recurrent();
/// The chunkwise form, and the parallel form as its single chunk.
void register_cpu_chunkwise_fwd();
void register_cpu_chunkwise_bwd();

}  // namespace carousel::mlstm
