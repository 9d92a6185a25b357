// Networks of one's own, written from ops alone: an MLP, an RNN cell and a transformer block learn small tasks.
#include <cmath>
#include <doctest/doctest.h>
#include <functional>

#include "lowrank/autograd/backward.hpp"
#include "lowrank/ops/attention.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/comparison.hpp"
#include "lowrank/ops/cross_entropy.hpp"
#include "lowrank/ops/extremes.hpp"
#include "lowrank/ops/gather.hpp"
#include "lowrank/ops/log_sum_exp.hpp"
#include "lowrank/ops/matmul.hpp"
#include "lowrank/ops/reduce.hpp"
#include "lowrank/ops/rms_norm.hpp"
#include "lowrank/ops/rotary.hpp"
#include "lowrank/optim/adamw.hpp"
#include "random_tensor.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using X = Tensor<float>;
using Ids = Tensor<std::int32_t>;

/// Trained tensors, by the order in which they are made.
struct Parameters {
    std::vector<X> all;
    Rng rng{1};

    X normal(const Shape& shape, double deviation) {
        const NoGrad no_grad;
        return add(leaf(mul(random_tensor<float>(shape, rng), deviation)));
    }
    X constant(const Shape& shape, float value) { return add(leaf(X::full(shape, value))); }
    X add(const X& parameter) {
        all.push_back(parameter);
        return parameter;
    }
};

/// The loss of the last of `steps` AdamW steps.
double train(const Parameters& parameters, int steps, double learning_rate, const std::function<X(int)>& loss_of) {
    AdamWOptions options;
    options.learning_rate = learning_rate;
    options.weight_decay = 0;
    AdamW<float> optimizer({ParameterGroup<float>(parameters.all)}, options);
    double last = 0;
    for (int step = 0; step < steps; ++step) {
        const X loss = loss_of(step);
        last = static_cast<double>(loss.item());
        optimizer.step(backward(loss));
    }
    return last;
}

/// The share of rows whose largest logit is the label.
double accuracy(const X& logits, const Ids& labels) {
    return static_cast<double>(mean(equal(cast<float>(argmax(logits, -1)), cast<float>(labels))).item());
}

X mean_cross_entropy(const X& logits, const Ids& labels) {
    return cross_entropy(logits, labels) / static_cast<double>(labels.numel());
}

} // namespace

TEST_CASE("an MLP tells two spirals apart") {
    std::vector<float> points;
    std::vector<std::int32_t> arms;
    for (int i = 0; i < 200; ++i) {
        const double radius = 0.1 + 0.009 * (i / 2), angle = 0.08 * (i / 2) + (i % 2) * 3.14159265;
        points.push_back(static_cast<float>(radius * std::cos(angle)));
        points.push_back(static_cast<float>(radius * std::sin(angle)));
        arms.push_back(i % 2);
    }
    const X x = X::from(points, {200, 2});
    const Ids labels = Ids::from(arms, {200});
    Parameters p;
    const X w1 = p.normal({2, 32}, 1.5), b1 = p.normal({32}, 0.5), w2 = p.normal({32, 32}, 0.25),
            b2 = p.constant({32}, 0), w3 = p.normal({32, 2}, 0.2), b3 = p.constant({2}, 0);
    const auto logits = [&] { return matmul(tanh(matmul(tanh(matmul(x, w1) + b1), w2) + b2), w3) + b3; };
    const double loss = train(p, 400, 0.02, [&](int) {
        // The cross-entropy written out, as one's own loss would be.
        const X y = logits();
        return mean(log_sum_exp(y) - squeeze(gather(y, 1, reshape(labels, {200, 1})), 1));
    });
    CHECK(loss < 0.02);
    CHECK(accuracy(logits(), labels) == 1.0);
}

TEST_CASE("a gated RNN cell keeps the parity of a sequence of bits") {
    constexpr std::int64_t batch = 32, length = 8, width = 16;
    Parameters p;
    const X wz = p.normal({width + 1, width}, 0.3), bz = p.constant({width}, 1), wh = p.normal({width + 1, width}, 0.5),
            bh = p.normal({width}, 0.1), out = p.normal({width, 2}, 0.3), bias = p.constant({2}, 0);
    Rng rng(2);
    X logits;
    Ids labels;
    const double loss = train(p, 500, 0.02, [&](int) {
        std::vector<float> bits;
        std::vector<std::int32_t> parities;
        for (std::int64_t i = 0; i < batch * length; ++i) {
            bits.push_back(static_cast<float>(rng.below(2)));
            parities.push_back((i % length == 0 ? 0 : parities.back()) ^ static_cast<std::int32_t>(bits.back()));
        }
        const X x = X::from(bits, {batch, length, 1}) * 2.0 - 1.0;
        X h = X::zeros({batch, width});
        std::vector<X> states;
        for (std::int64_t t = 0; t < length; ++t) {
            const X input = concat({h, select(x, 1, t)}, 1);
            const X gate = sigmoid(matmul(input, wz) + bz);
            h = (1.0 - gate) * h + gate * tanh(matmul(input, wh) + bh);
            states.push_back(h);
        }
        logits = reshape(matmul(reshape(stack(states, 1), {batch * length, width}), out) + bias, {batch * length, 2});
        labels = Ids::from(parities, {batch * length});
        return mean_cross_entropy(logits, labels);
    });
    CHECK(loss < 0.05);
    CHECK(accuracy(logits, labels) > 0.98);
}

TEST_CASE("a transformer block of LLaMA's kind continues what it has seen before, in packed rows") {
    constexpr std::int64_t batch = 16, length = 12, width = 32, heads = 2, hidden = 64, vocabulary = 8;
    Parameters p;
    struct Block {
        X attention_norm, qkv, o, mlp_norm, gate, up, down;
    };
    const X table = p.normal({vocabulary, width}, 0.5);
    std::vector<Block> blocks;
    for (int i = 0; i < 2; ++i) {
        blocks.push_back({p.constant({width}, 1), p.normal({width, 3 * width}, 0.18), p.normal({width, width}, 0.1),
                          p.constant({width}, 1), p.normal({width, hidden}, 0.18), p.normal({width, hidden}, 0.18),
                          p.normal({hidden, width}, 0.1)});
    }
    const X norm = p.constant({width}, 1), head = p.normal({width, vocabulary}, 0.18);
    const X frequencies = rotary_frequencies(width / heads, 100.0);
    // Each row packs two documents of six tokens: a b c a b c, with random a, b and c. From the fourth on, the next
    // token follows from what came before.
    std::vector<std::int32_t> places, starts;
    for (std::int64_t i = 0; i < batch * length; ++i) {
        places.push_back(static_cast<std::int32_t>(i % length % 6));
        starts.push_back(static_cast<std::int32_t>(i % length / 6 * 6));
    }
    const X angles = rotary_table<float>(Ids::from(places, {batch, length}), frequencies);
    AttentionOptions<Cpu> options;
    options.document_start = Ids::from(starts, {batch, length});
    const auto forward = [&](const Ids& ids) {
        X x = reshape(index_select(table, 0, reshape(ids, {batch * length})), {batch, length, width});
        for (const Block& block : blocks) {
            const X qkv = matmul(rms_norm(x, block.attention_norm, 1e-6), block.qkv);
            const auto parts = split(reshape(qkv, {batch, length, 3 * heads, width / heads}), {heads, heads, heads}, 2);
            x = x + matmul(attention(rotary(parts[0], angles), rotary(parts[1], angles), parts[2], options), block.o);
            const X y = rms_norm(x, block.mlp_norm, 1e-6);
            x = x + matmul(silu(matmul(y, block.gate)) * matmul(y, block.up), block.down);
        }
        return reshape(matmul(rms_norm(x, norm, 1e-6), head), {batch * length, vocabulary});
    };
    Rng rng(3);
    X logits;
    Ids labels;
    const double loss = train(p, 300, 0.01, [&](int) {
        std::vector<std::int32_t> tokens, next(batch * length, ignored_label);
        for (std::size_t i = 0; i < std::size_t(batch * length); ++i) {
            tokens.push_back(places[i] < 3 ? static_cast<std::int32_t>(rng.below(vocabulary)) : tokens[i - 3]);
            if (places[i] > 2) {
                next[i - 1] = tokens[i];
            }
        }
        labels = Ids::from(next, {batch * length});
        logits = forward(Ids::from(tokens, {batch, length}));
        return cross_entropy(logits, labels) / static_cast<double>(count_supervised(labels));
    });
    CHECK(loss < 0.05);
    CHECK(accuracy(logits, labels) > 0.49); // half of the labels are ignored, and equal no index
}
