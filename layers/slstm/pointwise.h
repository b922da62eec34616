// The sLSTM cell's formulas for one element of one step (layers/slstm/kernels.h), shared by the CPU
// and the CUDA kernels. `Math` supplies exp, tanh, sigmoid and log_sigmoid for the element type.
#pragma once

#include "core/base/host_device.h"

namespace carousel::slstm {

/// The state of one element. Before a document's first token it is the zero state, whose m of −∞
/// makes F̂ exactly zero and m' = i.
template <class C>
struct ElementState {
  C c, n, m;
};

/// What the backward needs of one step: Î, F̂, tanh(z), σ(o) and the slope of logσ(f), which is
/// σ(−f): 1 − σ(f) without its cancellation.
template <class C>
struct ElementGates {
  C i, f, z, o, forget_slope;
};

/// Advances `state` by one step from the gates' pre-activations.
/// The exponent of F̂ is logσ(f) − (m' − m): the difference of neighbouring stabilisers is nearly
/// exact, so that their rounding does not build up over time. Only where a given initial n is zero
/// can it be positive; the bound keeps F̂·c and F̂·n zero there instead of ∞·0.
template <class Math, class C>
CAROUSEL_HOST_DEVICE ElementGates<C> step(C i, C f, C z, C o, ElementState<C>& state) {
  const C log_f = Math::log_sigmoid(f);
  const C carried = log_f + state.m;
  const C m = state.n == C{0} || i > carried ? i : carried;
  const C exponent = log_f - (m - state.m);
  ElementGates<C> g;
  g.i = Math::exp(i - m);
  g.f = Math::exp(exponent < C{80} ? exponent : C{80});
  g.z = Math::tanh(z);
  g.o = Math::sigmoid(o);
  g.forget_slope = Math::sigmoid(-f);
  state.c = g.f * state.c + g.i * g.z;
  state.n = g.f * state.n + g.i;
  state.m = m;
  return g;
}

/// Gradients of the four pre-activations.
template <class C>
struct ElementGradients {
  C i, f, z, o;
};

/// One step backwards at constant m. `after` and `before` are the states around the step (their m
/// is not read), dh the whole gradient of h; dc and dn enter as gradients of the state after the
/// step and leave as those of the state before it.
template <class C>
CAROUSEL_HOST_DEVICE ElementGradients<C> step_backward(const ElementGates<C>& g,
                                                       const ElementState<C>& after,
                                                       const ElementState<C>& before, C dh, C& dc,
                                                       C& dn) {
  const C o_over_n = g.o / after.n;
  const C dh_h = dh * o_over_n * after.c;
  dc += dh * o_over_n;
  dn -= dh_h / after.n;
  ElementGradients<C> d;
  d.i = g.i * (g.z * dc + dn);
  d.f = g.f * g.forget_slope * (dc * before.c + dn * before.n);
  d.z = dc * g.i * (C{1} - g.z * g.z);
  d.o = dh_h * (C{1} - g.o);
  dc *= g.f;
  dn *= g.f;
  return d;
}

}  // namespace carousel::slstm
