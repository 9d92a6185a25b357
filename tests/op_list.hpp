// The list of differentiable ops, each with small inputs: what drives the checks that hold for every op. A new op is
// one entry here.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "lowrank/core/random.hpp"
#include "lowrank/math/list.hpp"
#include "lowrank/ops/attention.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/comparison.hpp"
#include "lowrank/ops/cross_entropy.hpp"
#include "lowrank/ops/cumsum.hpp"
#include "lowrank/ops/dropout.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/ops/embedding.hpp"
#include "lowrank/ops/extremes.hpp"
#include "lowrank/ops/gather.hpp"
#include "lowrank/ops/layer_norm.hpp"
#include "lowrank/ops/linear.hpp"
#include "lowrank/ops/lm_head.hpp"
#include "lowrank/ops/log_sum_exp.hpp"
#include "lowrank/ops/matmul.hpp"
#include "lowrank/ops/reduce.hpp"
#include "lowrank/ops/rms_norm.hpp"
#include "lowrank/ops/rotary.hpp"
#include "lowrank/ops/softmax.hpp"

namespace lowrank::testing {

/// An op as a function of its differentiable inputs, and inputs for it.
template <class T, DeviceTag D = Cpu>
struct OpExample {
    using X = Tensor<T, D>;
    std::string name;
    std::vector<X> inputs;
    std::function<X(const std::vector<X>&)> f;
};

/// Values between 0.2 and 1.2 with alternating sign, or positive ones: away from the kinks of relu and abs.
template <class T, DeviceTag D = Cpu>
Tensor<T, D> example_values(const Shape& shape, std::uint64_t seed, bool positive = false) {
    Rng rng(seed);
    std::vector<T> values;
    for (std::int64_t i = 0; i < numel(shape); ++i) {
        const double value = rng.uniform(0.2, 1.2);
        values.push_back(convert<T>(positive || rng.below(2) == 0 ? value : -value));
    }
    return Tensor<T, D>::from(values, shape);
}

/// The ops, with inputs of T (parameters too). `n` scales how many rows there are, and `d` how long they are, up to 64
/// in a head: 1 and 1 for checks of every element.
template <class T, DeviceTag D = Cpu>
std::vector<OpExample<T, D>> op_list(std::int64_t n = 1, std::int64_t d = 1) {
    using X = Tensor<T, D>;
    using C = compute_t<T>;
    using Inputs = std::vector<X>;
    std::vector<OpExample<T, D>> ops;
    const auto entry = [&](std::string name, Inputs inputs, std::function<X(const Inputs&)> f) {
        ops.push_back({std::move(name), std::move(inputs), std::move(f)});
    };
    const std::int64_t head = 4 * std::min<std::int64_t>(d, 16);
    const X matrix = example_values<T, D>({3 * n, 4 * d}, 1), other = example_values<T, D>({3 * n, 4 * d}, 2),
            positive = example_values<T, D>({3 * n, 4 * d}, 3, true), row = example_values<T, D>({4 * d}, 4);

    math::for_each(math::UnaryOps{}, [&]<class Op>(std::type_identity<Op>) {
        const std::string name = Op::name;
        const bool needs_positive = name == "log" || name == "sqrt" || name == "rsqrt";
        entry(name, {needs_positive ? positive : matrix}, [](const Inputs& x) { return unary(Op{}, x[0]); });
    });
    math::for_each(math::BinaryOps{}, [&]<class Op>(std::type_identity<Op>) {
        const bool needs_positive = std::string(Op::name) == "pow";
        entry(Op::name, {needs_positive ? positive : matrix, row},
              [](const Inputs& x) { return binary(Op{}, x[0], x[1]); });
    });
    entry("numbers", {matrix}, [](const Inputs& x) { return 2.0 * x[0] - x[0] / 3.0 + 1.0 / x[0] - (0.5 - x[0]); });
    entry("power", {positive}, [](const Inputs& x) { return pow(x[0], 1.5) + pow(x[0], -2); });
    entry("clamp", {matrix}, [](const Inputs& x) { return clamp(x[0], -0.7, 0.6); });
    entry("where", {matrix, row}, [other](const Inputs& x) { return where(greater(other, 0), x[0], x[1]); });

    entry("sum", {matrix}, [](const Inputs& x) { return sum(x[0], {0}); });
    entry("mean", {matrix}, [](const Inputs& x) { return mean(x[0], {1}, true); });
    entry("softmax", {matrix}, [](const Inputs& x) { return softmax(x[0]); });
    entry("log_softmax", {matrix}, [](const Inputs& x) { return log_softmax(x[0], 0); });
    entry("layer_norm", {matrix, row, example_values<T, D>({4 * d}, 5)},
          [](const Inputs& x) { return layer_norm(x[0], cast<C>(x[1]), cast<C>(x[2]), 1e-5); });
    entry("rms_norm", {matrix, row}, [](const Inputs& x) { return rms_norm(x[0], cast<C>(x[1]), 1e-5); });
    entry("log_sum_exp", {matrix}, [](const Inputs& x) { return log_sum_exp(x[0], 0); });
    entry("cumsum", {matrix}, [](const Inputs& x) { return cumsum(x[0], 1); });
    entry("max", {matrix}, [](const Inputs& x) { return max(x[0], 0).values; });
    entry("min", {matrix}, [](const Inputs& x) { return min(x[0]); });

    entry("reshape", {matrix}, [n](const Inputs& x) { return reshape(transpose(x[0]), {2 * n, -1}); });
    entry("permute", {example_values<T, D>({2, 3 * n, 2 * d}, 6)}, [](const Inputs& x) {
        return contiguous(permute(x[0], {2, 0, 1}));
    });
    entry("slice", {matrix}, [](const Inputs& x) { return slice(x[0], 1, 1, 3); });
    entry("select", {matrix}, [](const Inputs& x) { return select(x[0], 0, 1); });
    entry("concat", {matrix, other}, [](const Inputs& x) { return concat({x[0], x[1], x[0]}, 1); });
    entry("stack", {matrix, other}, [](const Inputs& x) { return stack<T, D>({x[0], x[1]}, 1); });
    entry("broadcast_to", {row}, [n, d](const Inputs& x) { return broadcast_to(x[0], {2, 3 * n, 4 * d}); });
    entry("cast", {matrix}, [](const Inputs& x) { return cast<T>(cast<C>(x[0])); });

    entry("matmul", {example_values<T, D>({2, 3 * n, 4 * d}, 7), example_values<T, D>({5 * d, 4 * d}, 8)},
          [](const Inputs& x) { return matmul(x[0], transpose(x[1])); });
    const X weight = example_values<T, D>({5 * d, 4 * d}, 9), rows = example_values<T, D>({3 * n, 4 * d}, 10);
    entry("linear",
          {rows, weight, example_values<T, D>({5 * d}, 11), example_values<T, D>({5 * d}, 12, true),
           example_values<T, D>({3 * n, 5 * d}, 13), example_values<T, D>({3 * n, 2}, 14),
           example_values<T, D>({5 * d, 2}, 15)},
          [](const Inputs& x) {
              Epilogue<T, D> epilogue;
              epilogue.bias = cast<C>(x[2]);
              epilogue.column_scale = cast<C>(x[3]);
              epilogue.activation = Activation::gelu_tanh;
              epilogue.residual = x[4];
              const WeightSlot<C, D> slot(contiguous(cast<C>(x[1])), Orientation::out_in);
              return linear<T, D>(x[0], slot, epilogue, {LowRankTerm<T, D>{x[5], cast<C>(x[6]), 0.5}});
          });
    entry("linear_low_rank", {rows, example_values<T, D>({2, 4 * d}, 16), example_values<T, D>({5 * d, 2}, 17)},
          [weight](const Inputs& x) {
              const WeightSlot<C, D> slot(contiguous(cast<C>(weight)), Orientation::out_in);
              return linear<T, D>(x[0], slot, {}, {LowRankTerm<T, D>{{}, cast<C>(x[2]), 0.5, cast<C>(x[1])}});
          });
    entry("lm_head_logits", {rows, weight}, [](const Inputs& x) {
        return cast<T>(lm_head_logits(x[0], WeightSlot<C, D>(contiguous(cast<C>(x[1])), Orientation::out_in)));
    });
    std::vector<std::int32_t> some;
    for (std::int64_t i = 0; i < 3 * n; ++i) {
        some.push_back(i == 1 ? ignored_label : static_cast<std::int32_t>(i * 3 % (5 * d)));
    }
    const auto labels = Tensor<std::int32_t, D>::from(some, {3 * n});
    some[1] = 3;
    const auto ids = Tensor<std::int32_t, D>::from(some, {3 * n});
    const auto places = Tensor<std::int32_t, D>::from({0, 3, 1, 4, 2, 3}, {6});
    entry("index_select", {example_values<T, D>({2, 5, 3 * n * d}, 21)},
          [places](const Inputs& x) { return index_select(x[0], 1, places); });
    const auto index = reshape(ids, {3 * n, 1});
    entry("gather", {example_values<T, D>({3 * n, 5 * d}, 22)},
          [index](const Inputs& x) { return gather(x[0], 1, index); });
    entry("scatter_add", {example_values<T, D>({5 * d, 2 * d}, 23), example_values<T, D>({3 * n, 2 * d}, 24)},
          [index, n, d](const Inputs& x) {
              return scatter_add(x[0], 0, broadcast_to(index, {3 * n, 2 * d}), x[1]);
          });
    const std::int64_t columns = 2 * n * d;
    std::vector<std::int32_t> apart; // two different rows of each column
    for (std::int64_t i = 0; i < 2 * columns; ++i) {
        apart.push_back(static_cast<std::int32_t>(i < columns ? 1 - i % 2 : 4 - i % 2 * 2));
    }
    const auto distinct = Tensor<std::int32_t, D>::from(apart, {2, columns});
    entry("scatter", {example_values<T, D>({5, columns}, 23), example_values<T, D>({2, columns}, 26)},
          [distinct](const Inputs& x) { return scatter(x[0], 0, distinct, x[1]); });
    const auto angles = rotary_table<T>(ids, rotary_frequencies<D>(head, 100.0));
    entry("rotary", {example_values<T, D>({2, 3 * n, 2, head + 1}, 25)},
          [angles](const Inputs& x) { return rotary(x[0], angles); });
    entry("embedding", {weight}, [ids](const Inputs& x) {
        return embedding<T>(ids, WeightSlot<C, D>(contiguous(cast<C>(x[0])), Orientation::out_in));
    });
    entry("cross_entropy", {example_values<T, D>({3 * n, 5 * d}, 16)},
          [labels](const Inputs& x) { return cast<T>(cross_entropy(x[0], labels)); });
    entry("lm_head_loss", {rows, weight}, [labels](const Inputs& x) {
        return cast<T>(lm_head_loss(x[0], WeightSlot<C, D>(contiguous(cast<C>(x[1])), Orientation::out_in), labels));
    });

    const auto seed = Tensor<std::int64_t, D>::scalar(7);
    entry("dropout", {matrix}, [seed](const Inputs& x) { return dropout(x[0], 0.4, seed, 1); });
    const X query = example_values<T, D>({2, 3 * n, 4, head}, 17), key = example_values<T, D>({2, 3 * n, 2, head}, 18),
            value = example_values<T, D>({2, 3 * n, 2, head}, 19);
    entry("attention", {query, key, value}, [seed](const Inputs& x) {
        AttentionOptions<D> options;
        options.dropout_p = 0.2;
        options.seed = seed;
        return attention(x[0], x[1], x[2], options);
    });
    entry("fused_attention", {example_values<T, D>({2, 3 * n, 6 * head}, 20)},
          [](const Inputs& x) { return fused_attention(x[0], 2, 2); });
    return ops;
}

} // namespace lowrank::testing
