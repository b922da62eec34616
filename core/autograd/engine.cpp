#include <map>

#include "core/autograd/node.h"
#include "core/autograd/variable.h"
#include "core/kernels/elementwise.h"

namespace carousel {

namespace {

/// Gradients that wait for a node, one slot an output.
using Pending = std::vector<Tensor>;

struct Newest {
  bool operator()(const Node* a, const Node* b) const { return a->sequence > b->sequence; }
};

struct Task {
  std::shared_ptr<Node> node;
  Pending gradients;
};

// Ordered by descending sequence number: every consumer of a node is newer than the node, so when
// a node comes to the front, all of its gradients have arrived.
using Queue = std::map<const Node*, Task, Newest>;

void check_gradient(const char* name, const TensorMeta& meta, const Tensor& gradient) {
  CAROUSEL_CHECK(
      gradient.defined() && gradient.shape() == meta.shape &&
          (gradient.dtype() == meta.dtype || gradient.dtype() == accumulation_dtype(meta.dtype)) &&
          gradient.device() == meta.device,
      "[{}] gradient {} for a variable {} {}", name, describe(gradient), name_of(meta.dtype),
      meta.shape);
}

}  // namespace

class Engine final : public BackwardContext {
 public:
  void seed(const Variable& root, Tensor gradient) {
    if (!gradient.defined()) {
      CAROUSEL_CHECK(root.value().numel() == 1,
                     "backward() of a variable of shape {} needs a gradient", root.shape());
      gradient = empty_like(root.value());
      fill(gradient.device(), {gradient, 1.0});
    }
    deliver("backward", Node::edge_to(root), std::move(gradient));
  }

  void run() {
    while (!queue_.empty()) {
      task_ = std::move(queue_.begin()->second);
      queue_.erase(queue_.begin());
      Node& node = *task_.node;
      CAROUSEL_CHECK(node.backward != nullptr,
                     "[{}] backward() a second time through the same graph", node.name);
      for (const SavedTensor& s : node.saved) {
        CAROUSEL_CHECK(!s.tensor.defined() || s.tensor.version() == s.version,
                       "[{}] a tensor {} saved for the backward was overwritten (version {}, saved "
                       "at {})",
                       node.name, describe(s.tensor), s.tensor.version(), s.version);
      }
      for (std::size_t o = 0; o < task_.gradients.size(); ++o)
        round(task_.gradients[o], node.outputs[o].dtype);
      node.backward(*this);
      node.backward = nullptr;
      node.saved.clear();
      for (Node::Edge& edge : node.inputs) edge.use.finish();
      for (LeafUse& use : node.captured) use.finish();
      task_ = {};
    }
  }

  const Tensor& grad(int i) const override { return task_.gradients[index(i)]; }

  Tensor grad_or_zeros(int i) const override {
    if (grad(i).defined()) return grad(i);
    const TensorMeta& meta = task_.node->outputs[index(i)];
    return Tensor::zeros(meta.shape, meta.dtype, meta.device);
  }

  const Tensor& saved(int i) const override { return task_.node->saved[index(i)].tensor; }

  bool needs(int i) const override { return task_.node->inputs[index(i)].needed(); }

  void set(int i, const Tensor& gradient) override {
    const Node::Edge& edge = task_.node->inputs[index(i)];
    if (edge.needed()) deliver(task_.node->name, edge, gradient.reshape(edge.meta.shape));
  }

  Tensor arrived(int i) const override {
    const Node::Edge& edge = task_.node->inputs[index(i)];
    if (!edge.needed() || edge.leaf_grad.defined()) return {};
    const auto it = queue_.find(edge.producer.get());
    if (it == queue_.end()) return {};
    const Tensor& slot = it->second.gradients[index(edge.output)];
    return slot.defined() && slot.unique() ? slot : Tensor();
  }

  Tensor accumulator(int i) override {
    const Node::Edge& edge = task_.node->inputs[index(i)];
    CAROUSEL_CHECK(edge.needed(), "[{}] accumulator({}) of an input that needs no gradient",
                   task_.node->name, i);
    if (edge.leaf_grad.defined()) {
      edge.leaf_grad.bump_version();
      return edge.leaf_grad;
    }
    Tensor& slot = pending(edge);
    const DType dtype = accumulation_dtype(edge.meta.dtype);
    Tensor buffer = Tensor::zeros(edge.meta.shape, dtype, edge.meta.device);
    if (slot.defined()) accumulate(buffer.device(), {slot, buffer});
    slot = buffer;
    return buffer;
  }

 private:
  static std::size_t index(int i) { return static_cast<std::size_t>(i); }

  // Sums of gradients may be wider than the variable; ops get them in its dtype.
  static void round(Tensor& gradient, DType dtype) {
    if (!gradient.defined() || gradient.dtype() == dtype) return;
    Tensor narrow = Tensor::empty(gradient.shape(), dtype, gradient.device());
    cast(narrow.device(), {gradient, narrow});
    gradient = std::move(narrow);
  }

  Tensor& pending(const Node::Edge& edge) {
    Task& task = queue_[edge.producer.get()];
    if (task.node == nullptr) {
      task.node = edge.producer;
      task.gradients.resize(edge.producer->outputs.size());
    }
    return task.gradients[index(edge.output)];
  }

  void deliver(const char* name, const Node::Edge& edge, Tensor gradient) {
    if (!edge.needed()) return;
    check_gradient(name, edge.meta, gradient);
    if (edge.leaf_grad.defined()) {
      accumulate(gradient.device(), {gradient, edge.leaf_grad});
      edge.leaf_grad.bump_version();
      return;
    }
    Tensor& slot = pending(edge);
    if (!slot.defined()) {
      slot = std::move(gradient);
    } else if (slot.unique()) {
      accumulate(slot.device(), {gradient, slot});
    } else {  // shared with another variable's gradient: sum into a fresh tensor
      Tensor sum = slot.clone();
      accumulate(sum.device(), {gradient, sum});
      slot = std::move(sum);
    }
  }

  Queue queue_;
  Task task_;
};

void backward(const Variable& root, Tensor gradient) {
  const NoGrad no_grad;
  const RoleScope role(Role::kActivations);
  Engine engine;
  engine.seed(root, std::move(gradient));
  engine.run();
}

void backward(const std::vector<Variable>& roots, const std::vector<Tensor>& gradients) {
  CAROUSEL_CHECK(roots.size() == gradients.size(), "{} roots, {} gradients", roots.size(),
                 gradients.size());
  const NoGrad no_grad;
  const RoleScope role(Role::kActivations);
  Engine engine;
  for (std::size_t i = 0; i < roots.size(); ++i) {
    if (gradients[i].defined()) engine.seed(roots[i], gradients[i]);
  }
  engine.run();
}

}  // namespace carousel
