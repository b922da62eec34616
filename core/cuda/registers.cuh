// How a Hopper block shares out its registers among its warpgroups.
#pragma once

namespace carousel::cuda {

/// Called by all warps of a warpgroup: from now on its threads have so many registers, a multiple
/// of 8 from 24 to 256. To grow waits until others have shrunk.
template <int kRegisters>
__device__ __forceinline__ void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace carousel::cuda
