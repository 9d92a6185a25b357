// Recording: leaves, edges, saved tensors, and how an operation's result joins the graph.
#pragma once

#include <tuple>
#include <utility>

#include "lowrank/autograd/node.hpp"

namespace lowrank {

namespace detail {
inline bool& recording() {
    thread_local bool flag = true;
    return flag;
}
} // namespace detail

/// Whether operations on this thread record what backward needs.
inline bool is_recording() {
    return detail::recording();
}

/// Switches recording on this thread on or off while it lives.
class RecordingScope {
  public:
    explicit RecordingScope(bool record) : before_(std::exchange(detail::recording(), record)) {}
    RecordingScope(const RecordingScope&) = delete;
    RecordingScope& operator=(const RecordingScope&) = delete;
    ~RecordingScope() { detail::recording() = before_; }

  private:
    bool before_;
};

/// While it lives, operations on this thread record nothing.
struct NoGrad : RecordingScope {
    NoGrad() : RecordingScope(false) {}
};

/// The same values as a new leaf: a tensor whose gradient `backward` computes.
template <class T, DeviceTag D>
Tensor<T, D> leaf(const Tensor<T, D>& values) {
    return values.with_node(make_leaf<T, D>());
}

/// The edge to an input of an operation that is being recorded.
template <class T, DeviceTag D>
Edge<T, D> edge(const Tensor<T, D>& input) {
    return is_recording() && input.node() ? Edge<T, D>(input.node(), input.shape()) : Edge<T, D>();
}

/// A tensor kept for a rule: its values, or where its node has a recipe the node, which makes them again each time
/// they are read. Reading throws when it was written to since.
template <class T, DeviceTag D>
class Saved {
  public:
    Saved() = default;
    explicit Saved(const Tensor<T, D>& tensor) {
        if (tensor.defined() && tensor.node() && node_of(tensor.node()).recipe) {
            node_ = tensor.node();
        } else if (tensor.defined()) {
            tensor_ = tensor.detach();
            version_ = tensor.version();
        }
    }

    Tensor<T, D> get() const {
        if (node_) {
            if (!node_of(node_).recipe) {
                throw AutogradError("backward: this part of the graph was freed by an earlier backward");
            }
            return node_of(node_).recipe();
        }
        if (tensor_.defined() && tensor_.version() != version_) {
            throw AutogradError(concat("backward: a tensor of shape ", tensor_.shape(),
                                       " that the graph needs was overwritten after it was used"));
        }
        return tensor_;
    }
    /// Whether it keeps no memory of its own.
    bool has_recipe() const { return node_ != nullptr; }

  private:
    static TensorNode<T, D>& node_of(const std::shared_ptr<Node>& node) {
        return static_cast<TensorNode<T, D>&>(*node);
    }

    Tensor<T, D> tensor_;
    std::shared_ptr<Node> node_;
    std::uint64_t version_ = 0;
};

/// Keeps a tensor for a rule, outside the graph. With an edge or a condition as `wanted`: only when that is true.
template <class T, DeviceTag D>
Saved<T, D> save(const Tensor<T, D>& tensor) {
    return Saved<T, D>(tensor);
}
template <class T, DeviceTag D, class Wanted>
Saved<T, D> save_if(const Wanted& wanted, const Tensor<T, D>& tensor) {
    return wanted ? Saved<T, D>(tensor) : Saved<T, D>();
}

/// Joins a result to the graph with the rule that hands its gradient to the edges it captured. `wanted` says whether
/// any edge is true; otherwise the value is returned as it is.
///
///   Edge ex = edge(x);
///   return record(y, bool(ex), [ex, saved = save(x)](const Tensor<T, D>& dy) { ex.add(mul(dy, saved.get())); });
template <class T, DeviceTag D, class Rule>
Tensor<T, D> record(const Tensor<T, D>& value, bool wanted, Rule&& rule) {
    if (!wanted) {
        return value;
    }
    return value.with_node(std::shared_ptr<Node>(new TensorNode<T, D>(std::forward<Rule>(rule)), detail::free_node));
}

/// Gives a recorded result a recipe, which makes its values again from what its rule keeps anyway: then whoever saves
/// the result keeps no memory for it. For what costs little beside the product that reads it. It runs without
/// recording.
template <class T, DeviceTag D, class Recipe>
void made_again_by(const Tensor<T, D>& result, Recipe&& recipe) {
    if (result.node()) {
        static_cast<TensorNode<T, D>&>(*result.node()).recipe = Callable<Tensor<T, D>>(std::forward<Recipe>(recipe));
    }
}

/// The short form for an operation of one's own. `rule(dy)` returns the input's gradient, or for several inputs a
/// std::tuple of theirs. It runs without recording.
///
///   return custom_op(y, [s = save(x)](const auto& dy) { return mul(dy, s.get()); }, x);
template <class T, DeviceTag D, class Rule, class... Inputs>
Tensor<T, D> custom_op(const Tensor<T, D>& value, Rule rule, const Inputs&... inputs) {
    auto edges = std::make_tuple(edge(inputs)...);
    const bool wanted = std::apply([](const auto&... e) { return (bool(e) || ...); }, edges);
    return record(value, wanted, [edges, rule = std::move(rule)](const Tensor<T, D>& dy) {
        if constexpr (sizeof...(Inputs) == 1) {
            std::get<0>(edges).add(rule(dy));
        } else {
            const auto gradients = rule(dy);
            static_assert(std::tuple_size_v<std::decay_t<decltype(gradients)>> == sizeof...(Inputs),
                          "the rule of a custom_op must return one gradient for each input");
            [&]<std::size_t... I>(std::index_sequence<I...>) {
                ((std::get<I>(edges) ? std::get<I>(edges).add(std::get<I>(gradients)) : void()), ...);
            }
            (std::index_sequence_for<Inputs...>{});
        }
    });
}

} // namespace lowrank
