// One of several translation units, each compiled with flags of its own, that train the same small net.
#include <algorithm>

#include "build/flags_unit.hpp"
#include "lowrank/lowrank.hpp"

using namespace lowrank;

std::vector<float> LOWRANK_UNIT() {
    Rng rng(7);
    const auto random = [&](const Shape& shape) {
        std::vector<float> values(static_cast<std::size_t>(numel(shape)));
        std::generate(values.begin(), values.end(), [&] { return static_cast<float>(rng.normal()) / 4; });
        return Tensor<float>::from(values, shape);
    };
    const auto x = random({50, 33}), w1 = leaf(random({33, 70})), w2 = leaf(random({70, 5}));
    std::vector<std::int32_t> labels(50);
    std::generate(labels.begin(), labels.end(), [&] { return static_cast<std::int32_t>(rng.below(5)); });
    AdamW<float> optimizer({ParameterGroup<float>({w1, w2})});
    std::vector<float> losses;
    for (int step = 0; step < 20; ++step) {
        const auto logits = matmul(gelu(matmul(x, w1)), w2);
        const auto loss = cross_entropy(logits, Tensor<std::int32_t>::from(labels, {50}));
        losses.push_back(loss.item());
        optimizer.step(backward(loss));
    }
    return losses;
}
