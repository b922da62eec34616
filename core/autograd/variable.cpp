#include "core/autograd/variable.h"

#include <algorithm>
#include <atomic>

#include "core/autograd/node.h"

namespace carousel {
namespace {

thread_local bool grad_mode = true;
thread_local OpObserver::Callback observer;
thread_local LeafCapture* active_capture = nullptr;
std::atomic<std::uint64_t> next_sequence{0};

}  // namespace

Variable::Variable(Tensor value) : state_(std::make_shared<State>()) {
  CAROUSEL_CHECK(value.defined(), "a variable needs a value");
  state_->value = std::move(value);
}

Variable Variable::leaf(Tensor value, Tensor grad) {
  CAROUSEL_CHECK(grad.defined() && grad.shape() == value.shape() &&
                     grad.dtype() == accumulation_dtype(value.dtype()) &&
                     grad.device() == value.device(),
                 "the gradient buffer of a parameter {} is {}", describe(value), describe(grad));
  Variable v(std::move(value));
  v.state_->grad = std::move(grad);
  return v;
}

const Tensor& Variable::value() const {
  CAROUSEL_CHECK(defined(), "value() of an undefined variable");
  return state_->value;
}

bool Variable::requires_grad() const {
  return defined() && (state_->grad.defined() || state_->producer != nullptr);
}

const Tensor& Variable::grad() const {
  CAROUSEL_CHECK(defined(), "grad() of an undefined variable");
  return state_->grad;
}

void Variable::on_gradient_complete(std::function<void()> hook) const {
  CAROUSEL_CHECK(defined() && state_->grad.defined(), "a gradient hook on what is no leaf");
  state_->uses.reset();
  if (!hook) return;
  state_->uses = std::make_shared<LeafUses>();
  state_->uses->on_complete = std::move(hook);
}

LeafCapture::LeafCapture() : outer_(active_capture) { active_capture = this; }

LeafCapture::~LeafCapture() {
  active_capture = outer_;
  if (outer_ != nullptr) {
    outer_->leaves_.insert(outer_->leaves_.end(), leaves_.begin(), leaves_.end());
  }
}

void LeafCapture::note(const std::vector<Variable>& inputs) {
  if (active_capture == nullptr || grad_mode) return;
  for (const Variable& v : inputs) {
    if (v.defined() && v.state_->uses != nullptr) {
      active_capture->leaves_.push_back(v.state_->uses);
    }
  }
}

void LeafCapture::attach_to(const Variable& result) {
  if (!result.defined() || result.state_->producer == nullptr) return;
  for (const auto& uses : leaves_) result.state_->producer->captured.emplace_back(uses);
}

Node::~Node() {
  // Take the chain of producers apart one by one: the recursion of the default destructor would
  // overflow the stack on long tapes.
  std::vector<std::shared_ptr<Node>> pending;
  const auto take = [&pending](std::vector<Edge>& edges) {
    for (Edge& e : edges) {
      if (e.producer != nullptr) pending.push_back(std::move(e.producer));
    }
  };
  take(inputs);
  while (!pending.empty()) {
    const std::shared_ptr<Node> node = std::move(pending.back());
    pending.pop_back();
    if (node.use_count() == 1) take(node->inputs);
  }
}

Node::Edge Node::edge_to(const Variable& v) {
  Edge edge;
  if (!v.defined()) return edge;
  edge.producer = v.state_->producer;
  edge.output = v.state_->output;
  edge.leaf_grad = v.state_->grad;
  edge.use = LeafUse(v.state_->uses);
  edge.meta = {v.shape(), v.dtype(), v.device()};
  return edge;
}

bool grad_enabled() { return grad_mode; }

GradMode::GradMode(bool enabled) : previous_(grad_mode) { grad_mode = enabled; }
GradMode::~GradMode() { grad_mode = previous_; }

OpObserver::OpObserver(Callback callback) {
  CAROUSEL_CHECK(!observer, "op observers do not nest");
  observer = std::move(callback);
}
OpObserver::~OpObserver() { observer = nullptr; }

bool will_record(std::initializer_list<const Variable*> inputs) {
  return grad_mode &&
         std::ranges::any_of(inputs, [](const Variable* v) { return v->requires_grad(); });
}

std::vector<Variable> record_outputs(const std::shared_ptr<Node>& node,
                                     std::vector<Tensor> outputs) {
  std::vector<Variable> results;
  results.reserve(outputs.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].defined()) {
      results.emplace_back();
      if (node != nullptr) node->outputs.emplace_back();
      continue;
    }
    Variable v(std::move(outputs[i]));
    if (node != nullptr) {
      node->outputs.push_back({v.shape(), v.dtype(), v.device()});
      v.state_->producer = node;
      v.state_->output = static_cast<int>(i);
    }
    results.push_back(std::move(v));
  }
  return results;
}

std::vector<Variable> record(const char* name, std::vector<Tensor> outputs,
                             std::vector<Variable> inputs, std::vector<Tensor> saved,
                             BackwardFunction backward) {
  if (observer) observer(name, outputs);
  LeafCapture::note(inputs);
  std::shared_ptr<Node> node;
  if (grad_mode && std::ranges::any_of(inputs, &Variable::requires_grad)) {
    node = std::make_shared<Node>(name, next_sequence++);
    node->inputs.reserve(inputs.size());
    for (const Variable& v : inputs) node->inputs.push_back(Node::edge_to(v));
    node->saved.reserve(saved.size());
    for (Tensor& t : saved) {
      const std::uint64_t version = t.defined() ? t.version() : 0;
      node->saved.push_back({std::move(t), version});
    }
    node->backward = std::move(backward);
  }
  return record_outputs(node, std::move(outputs));
}

Variable record(const char* name, Tensor output, std::vector<Variable> inputs,
                std::vector<Tensor> saved, BackwardFunction backward) {
  std::vector<Tensor> outputs;
  outputs.push_back(std::move(output));
  return record(name, std::move(outputs), std::move(inputs), std::move(saved), std::move(backward))
      .front();
}

}  // namespace carousel
