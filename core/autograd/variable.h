// Variables and the tape. A Variable is a tensor that may take part in differentiation; every
// differentiable op ends in record(), which appends a Node to the tape when a gradient is needed.
//
// Laws that all ops keep:
//   - Gradients of parameters (leaves) accumulate: backward functions `+=` into the leaf's gradient
//     buffer (accumulator()). Gradients of activations are fresh tensors (set()); the engine adds
//     them up where a variable was used more than once.
//   - Nothing is written in place into a tensor that a node has saved; its version is checked.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "core/tensor/tensor.h"

namespace carousel {

class Node;

class Variable {
 public:
  Variable() = default;  // undefined: an absent optional input
  /// A constant: no gradient flows into it.
  explicit Variable(Tensor value);
  /// A parameter: gradients accumulate into `grad`, of the same shape and of the value's
  /// accumulation dtype (float32 for bf16). The caller zeroes it before a step.
  static Variable leaf(Tensor value, Tensor grad);

  bool defined() const { return state_ != nullptr; }
  explicit operator bool() const { return defined(); }

  const Tensor& value() const;
  const Shape& shape() const { return value().shape(); }
  std::int64_t dim(int i) const { return value().dim(i); }
  DType dtype() const { return value().dtype(); }
  Device device() const { return value().device(); }

  /// True for leaves and for results of recorded ops.
  bool requires_grad() const;
  /// The gradient buffer of a leaf; undefined for other variables.
  const Tensor& grad() const;
  /// Calls `hook` in backward() whenever the leaf's gradient is complete: when the last op recorded
  /// so far that used it has added its share. Not called for a leaf that no gradient reaches. An
  /// empty function ends it.
  void on_gradient_complete(std::function<void()> hook) const;
  /// The same value without history.
  Variable detach() const { return Variable(value()); }

 private:
  friend class Node;
  friend std::vector<Variable> record_outputs(const std::shared_ptr<Node>& node,
                                              std::vector<Tensor> outputs);
  friend class Engine;
  friend class LeafCapture;
  struct State;
  std::shared_ptr<State> state_;
};

/// What a backward function sees: gradients of the outputs, saved tensors, and where the gradients
/// of the inputs go. Indices are those of the lists given to record().
class BackwardContext {
 public:
  virtual ~BackwardContext() = default;
  /// Gradient of output i in the output's shape and dtype; undefined if none reached it (at least
  /// one output has one).
  virtual const Tensor& grad(int i) const = 0;
  /// The same, as zeros where none arrived.
  virtual Tensor grad_or_zeros(int i) const = 0;
  virtual const Tensor& saved(int i) const = 0;
  /// False if input i needs no gradient: skip the work.
  virtual bool needs(int i) const = 0;
  /// Hands over the gradient of input i, of the input's size in any shape; dtype the input's or its
  /// accumulation dtype. May alias grad(o). Call at most once per input.
  virtual void set(int i, const Tensor& gradient) = 0;
  /// The gradient of input i that has arrived from elsewhere so far, in the input's shape and its
  /// dtype or accumulation dtype, to `+=` into instead of set(); undefined if there is none yet or
  /// it is shared: then set().
  virtual Tensor arrived(int i) const = 0;
  /// A zero-initialised or already partly summed buffer of input i's shape and accumulation dtype
  /// to `+=` into: the arena itself for a parameter. Instead of set().
  virtual Tensor accumulator(int i) = 0;
};

using BackwardFunction = std::function<void(BackwardContext&)>;

/// Ends every differentiable op: wraps `outputs` and, if gradients are on and some input needs one,
/// records a node that keeps `saved` until its backward has run. Undefined entries are allowed in
/// inputs and saved.
std::vector<Variable> record(const char* name, std::vector<Tensor> outputs,
                             std::vector<Variable> inputs, std::vector<Tensor> saved,
                             BackwardFunction backward);
/// The common case of one output.
Variable record(const char* name, Tensor output, std::vector<Variable> inputs,
                std::vector<Tensor> saved, BackwardFunction backward);

/// Watches the results of all ops in this thread while it lives, recorded or not: for diagnosis
/// (which tensor first became infinite?) and for comparing devices. Not nested.
class OpObserver {
 public:
  using Callback = std::function<void(const char* op, const std::vector<Tensor>& outputs)>;
  explicit OpObserver(Callback callback);
  ~OpObserver();
  OpObserver(const OpObserver&) = delete;
  OpObserver& operator=(const OpObserver&) = delete;
};

/// True if record() would record: ops may skip computing what only the backward needs.
bool will_record(std::initializer_list<const Variable*> inputs);
bool grad_enabled();

/// Turns recording off (or on) in this thread while it lives.
class GradMode {
 public:
  explicit GradMode(bool enabled);
  ~GradMode();
  GradMode(const GradMode&) = delete;
  GradMode& operator=(const GradMode&) = delete;

 private:
  bool previous_;
};
class NoGrad : public GradMode {
 public:
  NoGrad() : GradMode(false) {}
};

/// Runs the tape backwards from `root`. `gradient` has root's shape; undefined means 1 for a
/// one-element root. Iterative, newest node first, deterministic. Saved tensors and intermediate
/// gradients are freed as it goes; a second backward through the same nodes throws InternalError,
/// and so does a saved tensor that was overwritten since.
void backward(const Variable& root, Tensor gradient = {});
/// The same from several roots at once; undefined gradients are skipped.
void backward(const std::vector<Variable>& roots, const std::vector<Tensor>& gradients);

}  // namespace carousel
