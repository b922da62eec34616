// The tape's internals, shared by variable.cpp and engine.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "core/autograd/variable.h"

namespace carousel {

/// A tensor kept for the backward, with the version it had when it was saved.
struct SavedTensor {
  Tensor tensor;
  std::uint64_t version = 0;
};

struct TensorMeta {
  Shape shape;
  DType dtype;
  Device device;
};

/// The uses of a leaf whose backward is still to come, and what to call when it has run for all.
struct LeafUses {
  std::int64_t pending = 0;
  std::function<void()> on_complete;
};

/// One recorded use of a leaf; of other variables, and of leaves that nobody watches, it is empty.
class LeafUse {
 public:
  LeafUse() = default;
  explicit LeafUse(std::shared_ptr<LeafUses> uses) : uses_(std::move(uses)) {
    if (uses_ != nullptr) ++uses_->pending;
  }
  /// The graph was dropped without a backward.
  ~LeafUse() {
    if (uses_ != nullptr) --uses_->pending;
  }
  LeafUse(LeafUse&& other) noexcept : uses_(std::exchange(other.uses_, nullptr)) {}
  LeafUse& operator=(LeafUse&& other) noexcept {
    std::swap(uses_, other.uses_);
    return *this;
  }

  /// The backward of this use has run.
  void finish() {
    const std::shared_ptr<LeafUses> uses = std::exchange(uses_, nullptr);
    if (uses != nullptr && --uses->pending == 0) uses->on_complete();
  }

 private:
  std::shared_ptr<LeafUses> uses_;
};

/// Collects the leaves that ops use in this thread while nothing is recorded: those that a function
/// to be recomputed captures. Nested ones hand theirs on.
class LeafCapture {
 public:
  LeafCapture();
  ~LeafCapture();
  LeafCapture(const LeafCapture&) = delete;
  LeafCapture& operator=(const LeafCapture&) = delete;

  /// If one is active, notes the watched leaves among the inputs of an op.
  static void note(const std::vector<Variable>& inputs);
  /// Makes the uses so far part of the node that recomputes them, if `result` has one.
  void attach_to(const Variable& result);

 private:
  LeafCapture* outer_;
  std::vector<std::shared_ptr<LeafUses>> leaves_;
};

class Node {
 public:
  /// Where the gradient of one input goes: to a producer's output, to a leaf, or nowhere.
  struct Edge {
    std::shared_ptr<Node> producer;
    int output = 0;
    Tensor leaf_grad;
    TensorMeta meta{};
    LeafUse use;
    bool needed() const { return producer != nullptr || leaf_grad.defined(); }
  };

  Node(const char* node_name, std::uint64_t sequence_number)
      : name(node_name), sequence(sequence_number) {}
  /// Releases the graph behind it without recursion, however long the chain.
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  static Edge edge_to(const Variable& v);

  const char* name;
  std::uint64_t sequence;  ///< larger than that of every node it depends on
  std::vector<Edge> inputs;
  std::vector<TensorMeta> outputs;
  std::vector<SavedTensor> saved;
  std::vector<LeafUse> captured;  ///< leaves used inside, beside the inputs (recompute)
  BackwardFunction backward;      ///< empty once it has run
};

struct Variable::State {
  Tensor value;
  Tensor grad;                     // leaves
  std::shared_ptr<LeafUses> uses;  // leaves that are watched
  std::shared_ptr<Node> producer;  // results of ops
  int output = 0;
};

}  // namespace carousel
