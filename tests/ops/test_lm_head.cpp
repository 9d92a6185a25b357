#include <cmath>
#include <doctest/doctest.h>
#include <limits>
#include <memory>
#include <vector>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/linear.hpp"
#include "lowrank/ops/lm_head.hpp"
#include "random_tensor.hpp"
#include "reference.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

Tensor<std::int32_t> every_third_label(std::int64_t rows, std::int64_t vocabulary) {
    std::vector<std::int32_t> labels;
    for (std::int64_t i = 0; i < rows; ++i) {
        labels.push_back(i % 3 == 1 ? ignored_label : static_cast<std::int32_t>(i * 7 % vocabulary));
    }
    return Tensor<std::int32_t>::from(labels, {rows});
}

} // namespace

TEST_CASE("gradients of the head's loss, in both orientations") {
    Rng rng(1);
    const auto x = random_tensor<double>({7, 5}, rng);
    const auto labels = every_third_label(7, 11);
    for (const Orientation orientation : {Orientation::out_in, Orientation::in_out}) {
        const auto w = random_tensor<double>(orientation == Orientation::out_in ? Shape{11, 5} : Shape{5, 11}, rng);
        const auto report = gradient_check(
            [&](auto x_, auto w_) { return lm_head_loss(x_, WeightSlot<double, Cpu>(w_, orientation), labels); }, x, w);
        CHECK_MESSAGE(report.ok, report.str());
    }
}

TEST_CASE("many chunks equal the loss of all logits at once") {
    // A vocabulary so large that 27 rows of logits fill what a chunk may.
    const std::int64_t rows = 70, width = 8, vocabulary = 600000;
    CHECK(detail::lm_head_rows<float>(rows, vocabulary) == 24); // three chunks: 24, 24 and 22
    CHECK(detail::lm_head_rows<bf16>(rows, vocabulary) == 18);
    CHECK(detail::lm_head_rows<float>(rows, 10 * vocabulary) == 14);
    CHECK(detail::lm_head_rows<float>(0, vocabulary) == 0);
    Rng rng(2);
    const auto x = leaf(random_tensor<float>({rows, width}, rng));
    const auto w = random_tensor<float>({vocabulary, width}, rng);
    const WeightSlot<float, Cpu> frozen(std::make_shared<DenseWeight<float, Cpu>>(w, Orientation::out_in));
    const auto labels = every_third_label(rows, vocabulary);
    const auto chunked = lm_head_loss(x, frozen, labels);
    const auto whole = cross_entropy(linear(x, frozen), labels);
    CHECK(relative_error(chunked, whole) < 1e-6);
    CHECK(relative_error(backward(chunked)[x], backward(whole)[x]) < 2e-6);
}

TEST_CASE("nothing supervised: the loss is 0 and so is the gradient") {
    Rng rng(3);
    const auto x = leaf(random_tensor<float>({2, 4}, rng));
    const WeightSlot<float, Cpu> w(random_tensor<float>({6, 4}, rng), Orientation::out_in);
    const auto loss = lm_head_loss(x, w, Tensor<std::int32_t>::full({2}, ignored_label));
    CHECK(loss.item() == 0);
    CHECK(backward(loss)[x].to_vector() == std::vector<float>(8, 0));
}

TEST_CASE("without a leaf nothing is recorded; a NaN reaches the loss") {
    Rng rng(4);
    auto x = random_tensor<float>({2, 4}, rng);
    const WeightSlot<float, Cpu> w(random_tensor<float>({6, 4}, rng), Orientation::out_in);
    const auto labels = Tensor<std::int32_t>::from({1, 2}, {2});
    CHECK(!lm_head_loss(x, w, labels).node());
    x.mutable_data()[5] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(lm_head_loss(x, w, labels).item()));
}

TEST_CASE("logits are a linear's, and numbers of the type of the sums") {
    Rng rng(5);
    for (const std::int64_t rows : {3, 40}) {
        const auto x = random_tensor<float>({rows, 2, 24}, rng), w = random_tensor<float>({50, 24}, rng);
        const WeightSlot<float, Cpu> head(std::make_shared<DenseWeight<float, Cpu>>(w, Orientation::out_in));
        CHECK(lm_head_logits(x, head).to_vector() == linear(x, head).to_vector());
        CHECK(lm_head_logits(x, head).shape() == Shape{rows, 2, 50});
        const auto of_halves = lm_head_logits(cast<bf16>(x), head).to_vector();
        const auto exact = lm_head_logits(cast<float>(cast<bf16>(x)), head).to_vector();
        double worst = 0;
        for (std::size_t i = 0; i < exact.size(); ++i) { // a weight may be rounded, the result not
            worst = std::max(worst, std::abs(double(of_halves[i]) - exact[i]));
        }
        CHECK(worst < 0x1p-9 * 24);
        CHECK(cast<float>(cast<bf16>(lm_head_logits(cast<bf16>(x), head))).to_vector() != of_halves);
    }
    CHECK_THROWS_WITH_AS(lm_head_logits(random_tensor<float>({2, 3}, rng),
                                        WeightSlot<float, Cpu>(random_tensor<float>({5, 4}, rng), Orientation::out_in)),
                         "lm_head_logits: expected x [..., 4], found [2, 3]", ShapeError);
}

TEST_CASE("labels and shapes that do not fit are named") {
    Rng rng(5);
    const auto x = random_tensor<float>({2, 4}, rng);
    const WeightSlot<float, Cpu> w(random_tensor<float>({6, 4}, rng), Orientation::out_in);
    CHECK_THROWS_WITH_AS(lm_head_loss(x, w, Tensor<std::int32_t>::from({1, 6}, {2})),
                         "lm_head_loss: label 6 in row 1, expected 0 to 5 or -100", OptionError);
    CHECK_THROWS_AS(lm_head_loss(x, w, Tensor<std::int32_t>::from({1}, {1})), ShapeError);
}
