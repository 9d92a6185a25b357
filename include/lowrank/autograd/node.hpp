// The recorded graph: nodes that know how to hand a gradient on, and edges through which rules do it.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <memory>
#include <queue>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lowrank/backend/cpu/arithmetic.hpp"
#include "lowrank/core/error.hpp"
#include "lowrank/tensor/tensor.hpp"

namespace lowrank {

class Backward;

/// A recorded value: a leaf (a parameter) or the result of an operation. Numbered in the order of creation, so that a
/// node's inputs always have smaller numbers.
struct Node {
    explicit Node(bool leaf) : sequence(next_sequence()), leaf(leaf) {}
    virtual ~Node() = default;

    /// Applies the rule to the gradient collected here, hands the results to the inputs and frees the rule.
    virtual void run() = 0;

    const std::uint64_t sequence;
    const bool leaf;
    bool queued = false;
    Node* next_to_free = nullptr;

  private:
    static std::uint64_t next_sequence() {
        static std::atomic<std::uint64_t> counter{0};
        return counter.fetch_add(1, std::memory_order_relaxed);
    }
};

namespace detail {

/// Frees a node without recursion: a chain of a million operations must not overflow the stack. What it keeps needs no
/// destructor, because tensors of static duration are freed after the thread's own variables.
inline void free_node(Node* node) {
    thread_local Node* pending = nullptr;
    thread_local bool active = false;
    node->next_to_free = std::exchange(pending, node);
    if (active) {
        return;
    }
    active = true;
    while (pending != nullptr) {
        delete std::exchange(pending, pending->next_to_free);
    }
    active = false;
}

} // namespace detail

/// A callable of any type. std::function would want a copy of it, which is compiled for each operation and never made.
template <class Result, class... Arguments>
class Callable {
  public:
    Callable() = default;
    template <class F>
    requires(!std::same_as<std::decay_t<F>, Callable>) explicit Callable(F&& callable)
        : callable_(new std::decay_t<F>(std::forward<F>(callable)),
                    [](void* f) { delete static_cast<std::decay_t<F>*>(f); }),
          call_([](void* f, Arguments... arguments) -> Result {
              return (*static_cast<std::decay_t<F>*>(f))(arguments...);
          }) {}

    explicit operator bool() const { return callable_ != nullptr; }
    Result operator()(Arguments... arguments) const { return call_(callable_.get(), arguments...); }

  private:
    std::unique_ptr<void, void (*)(void*)> callable_{nullptr, nullptr};
    Result (*call_)(void*, Arguments...) = nullptr;
};

/// A node whose value is a Tensor<T, D>.
template <class T, DeviceTag D>
struct TensorNode final : Node {
    explicit TensorNode(bool leaf) : Node(leaf) {}
    template <class F>
    explicit TensorNode(F&& callable) : Node(false),
                                        rule(std::forward<F>(callable)) {}

    void run() override {
        if (!rule) {
            throw AutogradError("backward: this part of the graph was freed by an earlier backward");
        }
        const Tensor<T, D> dy = std::exchange(gradient, {});
        const auto taken = std::exchange(rule, {}); // freed even where it throws
        recipe = {};
        taken(dy);
    }

    /// What has been collected so far, where it can be added to in its place; null where there is nothing, or where
    /// something else uses its memory.
    Tensor<T, D>* own_gradient() {
        return gradient.defined() && gradient.storage().unique() && gradient.is_contiguous() ? &gradient : nullptr;
    }

    Tensor<T, D> gradient;                    // what has been collected during a backward
    Callable<void, const Tensor<T, D>&> rule; // what it does with its gradient
    Callable<Tensor<T, D>> recipe;            // makes the value once more; most nodes have none
};

/// A new leaf: the identity of something that gets a gradient of its own.
template <class T, DeviceTag D>
std::shared_ptr<Node> make_leaf() {
    return std::shared_ptr<Node>(new TensorNode<T, D>(true), detail::free_node);
}

namespace detail {

/// target += addend, elementwise; shapes equal, target contiguous.
template <class T, DeviceTag D>
void add_into(Tensor<T, D>& target, const Tensor<T, D>& addend) {
    if (target.shape() != addend.shape()) {
        throw AutogradError(concat("a gradient of shape ", addend.shape(), " meets one of shape ", target.shape()));
    }
    add_strided(D{}, target.shape(), addend.data(), addend.strides(), target.mutable_data());
}

/// A copy of its own, contiguous.
template <class T, DeviceTag D>
Tensor<T, D> clone(const Tensor<T, D>& x) {
    Tensor<T, D> out = Tensor<T, D>::empty(x.shape());
    copy_strided(D{}, x.shape(), x.data(), x.strides(), out.mutable_data());
    return out;
}

} // namespace detail

/// Gradients by parameter: what `backward` returns or adds to. A gradient's memory stays where it is when later
/// backward passes add to it.
class Gradients {
  public:
    /// The gradient of a leaf tensor; null when none has arrived.
    template <class T, DeviceTag D>
    const Tensor<T, D>* find(const Tensor<T, D>& leaf) const {
        const auto it = entries_.find(leaf.node().get());
        return it == entries_.end() ? nullptr : static_cast<const Tensor<T, D>*>(it->second.tensor.get());
    }
    template <class T, DeviceTag D>
    Tensor<T, D>* find(const Tensor<T, D>& leaf) {
        return const_cast<Tensor<T, D>*>(std::as_const(*this).find(leaf));
    }

    /// The gradient of a leaf tensor. Throws AutogradError when none has arrived.
    template <class T, DeviceTag D>
    const Tensor<T, D>& operator[](const Tensor<T, D>& leaf) const {
        const Tensor<T, D>* found = find(leaf);
        if (found == nullptr) {
            throw AutogradError(concat("no gradient for the tensor of shape ", leaf.shape(),
                                       ": it is no leaf of the graph that backward walked"));
        }
        return *found;
    }

    std::size_t size() const { return entries_.size(); }

    /// Sets every gradient to zero and keeps its memory.
    void zero() {
        for (auto& [node, entry] : entries_) {
            entry.zero(entry.tensor.get());
        }
    }
    void clear() { entries_.clear(); }
    template <class T, DeviceTag D>
    void remove(const Tensor<T, D>& leaf) {
        entries_.erase(leaf.node().get());
    }

    /// Adds to the gradient of a leaf.
    template <class T, DeviceTag D>
    void add(const std::shared_ptr<Node>& leaf, const Tensor<T, D>& gradient) {
        auto [it, fresh] = entries_.try_emplace(leaf.get());
        if (!fresh) {
            detail::add_into(*static_cast<Tensor<T, D>*>(it->second.tensor.get()), gradient);
            return;
        }
        const bool own = gradient.storage().unique() && gradient.is_contiguous();
        it->second.keep = leaf;
        it->second.tensor = std::make_shared<Tensor<T, D>>(own ? gradient.detach() : detail::clone(gradient));
        it->second.zero = [](void* tensor) {
            auto& values = *static_cast<Tensor<T, D>*>(tensor);
            D::zero(values.mutable_data(), static_cast<std::size_t>(values.numel()) * sizeof(T));
        };
    }

  private:
    struct Entry {
        std::shared_ptr<Node> keep; // a key must not be freed and given to another parameter
        std::shared_ptr<void> tensor;
        void (*zero)(void*) = nullptr;
    };
    std::unordered_map<const Node*, Entry> entries_;
};

/// One walk over the graph. Nodes run in the reverse order of creation: each after all that use it.
class Backward {
  public:
    explicit Backward(Gradients& into) : gradients_(into), outer_(std::exchange(current(), this)) {}
    Backward(const Backward&) = delete;
    Backward& operator=(const Backward&) = delete;
    ~Backward() {
        for (; !queue_.empty(); queue_.pop()) { // after an exception
            queue_.top()->queued = false;
        }
        current() = outer_;
    }

    /// The walk that runs on this thread; null outside.
    static Backward*& current() {
        thread_local Backward* walk = nullptr;
        return walk;
    }

    Gradients& gradients() { return gradients_; }

    template <class T, DeviceTag D>
    void deliver(const std::shared_ptr<Node>& target, const Tensor<T, D>& gradient) {
        if (target->leaf) {
            gradients_.add(target, gradient);
            return;
        }
        auto& node = static_cast<TensorNode<T, D>&>(*target);
        if (!node.gradient.defined()) {
            node.gradient = gradient.detach();
        } else if (Tensor<T, D>* own = node.own_gradient()) {
            detail::add_into(*own, gradient);
        } else {
            Tensor<T, D> sum = detail::clone(node.gradient);
            detail::add_into(sum, gradient);
            node.gradient = sum;
        }
        if (!target->queued) {
            target->queued = true;
            queue_.push(target);
        }
    }

    void run() {
        while (!queue_.empty()) {
            const std::shared_ptr<Node> node = queue_.top();
            queue_.pop();
            node->queued = false;
            node->run();
        }
    }

  private:
    struct Earlier {
        bool operator()(const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) const {
            return a->sequence < b->sequence;
        }
    };

    Gradients& gradients_;
    Backward* outer_;
    std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, Earlier> queue_;
};

/// The way from an operation back to one of its inputs. False when nobody wants that input's gradient: then nothing
/// needs to be saved or computed for it.
template <class T, DeviceTag D>
class Edge {
  public:
    Edge() = default;
    explicit Edge(std::shared_ptr<Node> node, Shape shape) : node_(std::move(node)), shape_(shape) {}

    explicit operator bool() const { return node_ != nullptr; }

    /// Hands a gradient of the input's shape on. Only inside a rule.
    void add(const Tensor<T, D>& gradient) const {
        if (gradient.shape() != shape_) {
            throw AutogradError(
                concat("a rule gave a gradient of shape ", gradient.shape(), " for an input of shape ", shape_));
        }
        Backward::current()->deliver(node_, gradient);
    }

    /// The gradient that the input has so far, contiguous, where a rule may add to it in its place; null where there is
    /// none, or where something else uses its memory. Only inside a rule.
    Tensor<T, D>* gradient_so_far() const {
        return node_->leaf ? nullptr : static_cast<TensorNode<T, D>&>(*node_).own_gradient();
    }

  private:
    std::shared_ptr<Node> node_;
    Shape shape_;
};

} // namespace lowrank
