// The recurrent form: token by token in float32, for any sequence length; a single step for
// decoding.
#pragma once

#include "core/cuda/stream.h"
#include "layers/mlstm/cuda/blocks.h"
#include "layers/mlstm/cuda/gates.h"

namespace carousel::mlstm::cuda {

/// The longest column of the state that a warp can hold.
inline constexpr int kMaxScanColumns = 1024;

/// F̂_t (exactly 0 at a reset), Î_t and e^{−m_t}: (units, S) each, overwritten.
struct TokenFactors {
  float* forget = nullptr;
  float* input = nullptr;
  float* bound = nullptr;
};
/// Also writes the stabiliser (B, S, NH) and m_last (B, NH) where they are not null.
void launch_token_factors(const carousel::cuda::Stream& stream, const Problem& problem,
                          const GateInputs& in, const TokenFactors& out, float* stabiliser,
                          float* m_last);

template <class T>
struct ScanForwardArgs {
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  TokenFactors factors;
  const float* c0 = nullptr;  ///< (units, DQK, DV) or null
  const float* n0 = nullptr;
  float eps = 0.0f;
  T* h = nullptr;
  float* normaliser = nullptr;  ///< (B, S, NH) or null
  float* sign = nullptr;
  float* c_last = nullptr;  ///< or null, each for itself
  float* n_last = nullptr;
};
template <class T>
void launch_scan_fwd(const carousel::cuda::Stream& stream, const Problem& problem,
                     const ScanForwardArgs<T>& args);

template <class T>
struct ScanBackwardArgs {
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  const T* dh = nullptr;
  TokenFactors factors;
  const GradBlock* grads = nullptr;
  const float* c0 = nullptr;
  const float* n0 = nullptr;
  const float* dc_last = nullptr;
  const float* dn_last = nullptr;
  T* dq = nullptr;  ///< or null
  T* dk = nullptr;
  T* dv = nullptr;
  float* q_dq = nullptr;  ///< (scan_parts, units, padded time), or null if neither sum is needed
  float* k_dk = nullptr;
  float* dc0 = nullptr;  ///< or null, each for itself
  float* dn0 = nullptr;
};
/// In how many parts the sums over DQK come.
int scan_parts(const Problem& problem);
template <class T>
void launch_scan_bwd(const carousel::cuda::Stream& stream, const Problem& problem,
                     const ScanBackwardArgs<T>& args);

template <class T>
struct StepArgs {
  const T* q = nullptr;  ///< (B, 1, NH, DQK)
  const T* k = nullptr;
  const T* v = nullptr;
  GateInputs gates;
  const float* c0 = nullptr;
  const float* n0 = nullptr;
  float eps = 0.0f;
  T* h = nullptr;
  float* c_last = nullptr;  ///< or null; may be c0
  float* n_last = nullptr;  ///< not n0: every CTA of a head reads that
  float* m_last = nullptr;
};
/// One token: reads the state once, writes it once.
template <class T>
void launch_step(const carousel::cuda::Stream& stream, const Problem& problem,
                 const StepArgs<T>& args);

}  // namespace carousel::mlstm::cuda
