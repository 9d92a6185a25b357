#include <cmath>
#include <doctest/doctest.h>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/cross_entropy.hpp"
#include "reference.hpp"

using namespace lowrank;
using lowrank::testing::reference_cases;
using lowrank::testing::relative_error;

namespace {

template <class T>
Tensor<T> random(const Shape& shape, std::uint64_t seed) {
    Rng rng(seed);
    std::vector<T> values(static_cast<std::size_t>(numel(shape)));
    for (T& value : values) {
        value = T(static_cast<float>(3 * rng.normal()));
    }
    return Tensor<T>::from(values, shape);
}

Tensor<std::int32_t> labels_of(const std::vector<std::int32_t>& labels) {
    return Tensor<std::int32_t>::from(labels, {static_cast<std::int64_t>(labels.size())});
}

Tensor<std::int32_t> some_labels(std::int64_t rows, std::int64_t classes) {
    std::vector<std::int32_t> labels;
    for (std::int64_t row = 0; row < rows; ++row) {
        labels.push_back(row % 5 == 3 ? ignored_label : static_cast<std::int32_t>(row * 7919 % classes));
    }
    return labels_of(labels);
}

/// −log softmax(logits)[label], in double by the definition.
std::vector<double> naive(const Tensor<double>& logits, const Tensor<std::int32_t>& labels) {
    std::vector<double> losses;
    for (std::int64_t row = 0; row < logits.size(0); ++row) {
        const double* x = logits.data() + row * logits.size(1);
        double sum = 0;
        for (std::int64_t i = 0; i < logits.size(1); ++i) {
            sum += std::exp(x[i]);
        }
        const std::int32_t label = labels.data()[row];
        losses.push_back(label == ignored_label ? 0.0 : std::log(sum) - x[label]);
    }
    return losses;
}

double total(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) {
        sum += value;
    }
    return sum;
}

} // namespace

TEST_CASE("the summed loss and its gradient equal PyTorch's") {
    for (const auto& c : reference_cases("cross_entropy_sum")) {
        const auto labels = cast<std::int32_t>(c.tensor<double>("labels"));
        const auto loss = [&]<class T>(std::type_identity<T>) {
            return [&](const std::vector<Tensor<T>>& x) { return cross_entropy(x[0], labels); };
        };
        c.check<double>({"x"}, 1e-6, loss(std::type_identity<double>()));
        c.check<float>({"x"}, 1e-6, loss(std::type_identity<float>()));
    }
}

TEST_CASE("each token's loss equals PyTorch's") {
    for (const auto& c : reference_cases("cross_entropy_tokens")) {
        CAPTURE(c.name());
        const auto x = c.tensor<float>("x");
        const auto labels = cast<std::int32_t>(c.tensor<double>("labels"));
        auto losses = Tensor<double>::empty(labels.shape());
        cross_entropy_rows(Cpu{}, x.size(0), x.size(1), x.data(), labels.data(), losses.mutable_data(),
                           static_cast<float*>(nullptr), x.size(1));
        CHECK(relative_error(losses, c.tensor<double>("y")) < 1e-6);
    }
}

TEST_CASE("rows of any length") {
    for (const std::int64_t classes : {1, 2, 15, 16, 17, 33, 513, 50257}) {
        CAPTURE(classes);
        const std::int64_t rows = 6;
        const auto labels = some_labels(rows, classes);
        const auto x = random<float>({rows, classes}, 1);
        const double expected = total(naive(cast<double>(x), labels));
        CHECK(double(cross_entropy(x, labels).item()) == doctest::Approx(expected).epsilon(3e-7));
        CHECK(cross_entropy(cast<double>(x), labels).item() == doctest::Approx(expected).epsilon(1e-13));
        const auto half = cast<bf16>(x);
        CHECK(double(cross_entropy(half, labels).item()) ==
              doctest::Approx(total(naive(cast<double>(half), labels))).epsilon(1e-6));
    }
}

TEST_CASE("gradients agree with central differences") {
    const auto labels = labels_of({3, ignored_label, 0, 16});
    const auto report =
        gradient_check([&](const auto& x) { return cross_entropy(x, labels); }, random<double>({4, 17}, 1));
    CHECK_MESSAGE(report.ok, report.str());
    const auto view =
        gradient_check([&](const auto& x) { return cross_entropy(transpose(x), labels); }, random<double>({17, 4}, 1));
    CHECK_MESSAGE(view.ok, view.str());
}

TEST_CASE("losses and gradients in one go, in place, are those of the op") {
    const std::int64_t rows = 9, classes = 37;
    const auto labels = some_labels(rows, classes);
    const auto check = [&]<class T>(std::type_identity<T>) {
        const auto x = leaf(random<T>({rows, classes}, 2));
        const auto loss = cross_entropy(x, labels);
        const Gradients g = backward(loss);
        auto in_place = detail::clone(x.detach());
        auto losses = Tensor<double>::empty({rows});
        T* values = in_place.mutable_data();
        cross_entropy_rows(Cpu{}, rows, classes, static_cast<const T*>(values), labels.data(), losses.mutable_data(),
                           values, classes);
        CHECK(in_place.to_vector() == g[x].to_vector());
        CHECK(static_cast<compute_t<T>>(total(losses.to_vector())) == loss.item());
        for (std::int64_t i = 0; i < classes; ++i) {
            CHECK(in_place.data()[3 * classes + i] == T(0)); // an ignored row
        }
    };
    check(std::type_identity<float>());
    check(std::type_identity<double>());
}

TEST_CASE("gradients in bf16 take the place of fp32 logits, row by row") {
    const std::int64_t rows = 9, classes = 37;
    const auto labels = some_labels(rows, classes);
    auto wide = random<float>({rows, classes}, 2), narrow = detail::clone(wide);
    auto losses = Tensor<double>::empty({rows});
    float* values = wide.mutable_data();
    auto* halves = reinterpret_cast<bf16*>(narrow.mutable_data());
    cross_entropy_rows(Cpu{}, rows, classes, static_cast<const float*>(values), labels.data(), losses.mutable_data(),
                       values, classes);
    const auto expected = losses.to_vector();
    cross_entropy_rows(Cpu{}, rows, classes, narrow.data(), labels.data(), losses.mutable_data(), halves, 2 * classes);
    CHECK(losses.to_vector() == expected);
    for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < classes; ++j) {
            CHECK(halves[i * 2 * classes + j].bits == bf16(values[i * classes + j]).bits);
        }
    }
}

TEST_CASE("bf16 gradients round once") {
    const auto labels = some_labels(6, 40);
    const auto x = leaf(random<bf16>({6, 40}, 3));
    const auto wide = leaf(cast<double>(x.detach()));
    const auto g = cast<double>(backward(cross_entropy(x, labels))[x]).to_vector();
    const auto exact = backward(cross_entropy(wide, labels))[wide].to_vector();
    for (std::size_t i = 0; i < g.size(); ++i) {
        CHECK(std::abs(g[i] - exact[i]) <= 0x1.01p-8 * std::abs(exact[i]));
    }
}

TEST_CASE("supervised labels are counted; without any the loss is 0 and so is its gradient") {
    CHECK(count_supervised(labels_of({1, ignored_label, 0, ignored_label})) == 2);
    CHECK(count_supervised(labels_of({})) == 0);
    const auto x = leaf(random<float>({2, 5}, 4));
    const auto loss = cross_entropy(x, labels_of({ignored_label, ignored_label}));
    CHECK(loss.item() == 0.0f);
    CHECK(backward(loss)[x].to_vector() == std::vector<float>(10, 0.0f));
    CHECK(cross_entropy(Tensor<float>::zeros({0, 5}), labels_of({})).item() == 0.0f);
}

TEST_CASE("a label that is no class is refused with its row") {
    const auto x = Tensor<float>::zeros({3, 5});
    CHECK_THROWS_WITH_AS(cross_entropy(x, labels_of({1, 2, 5})),
                         "cross_entropy: label 5 in row 2, expected 0 to 4 or -100", OptionError);
    CHECK_THROWS_WITH_AS(cross_entropy(x, labels_of({1, -1, 0})),
                         "cross_entropy: label -1 in row 1, expected 0 to 4 or -100", OptionError);
    CHECK_THROWS_AS(cross_entropy(x, labels_of({1, 2})), ShapeError);
    CHECK_THROWS_AS(cross_entropy(Tensor<float>::zeros({3}), labels_of({1, 2, 3})), ShapeError);
}

TEST_CASE("the same bits for any number of threads") {
    const auto labels = some_labels(64, 1000);
    const auto x = leaf(random<float>({64, 1000}, 5));
    const auto run = [&](int threads) {
        set_num_threads(threads);
        const auto loss = cross_entropy(x, labels);
        return std::pair(loss.item(), backward(loss)[x].to_vector());
    };
    const auto one = run(1);
    CHECK(one == run(2));
    CHECK(one == run(3));
}
