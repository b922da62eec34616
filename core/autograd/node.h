// The tape's internals, shared by variable.cpp and engine.cpp.
#pragma once

#include <cstdint>
#include <memory>
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

class Node {
 public:
  /// Where the gradient of one input goes: to a producer's output, to a leaf, or nowhere.
  struct Edge {
    std::shared_ptr<Node> producer;
    int output = 0;
    Tensor leaf_grad;
    TensorMeta meta{};
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
  BackwardFunction backward;  ///< empty once it has run
};

struct Variable::State {
  Tensor value;
  Tensor grad;                     // leaves
  std::shared_ptr<Node> producer;  // results of ops
  int output = 0;
};

}  // namespace carousel
