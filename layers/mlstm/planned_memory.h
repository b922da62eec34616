// Memory of the CUDA kernels for plans.
#pragma once

namespace carousel::mlstm {

/// Makes meta count the workspace of the chunkwise form where it stands for a GPU.
void register_planned_memory();

}  // namespace carousel::mlstm
