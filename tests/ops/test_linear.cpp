#include <doctest/doctest.h>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/linear.hpp"
#include "random_tensor.hpp"
#include "reference.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

Activation activation_named(const std::string& name) {
    return name == "relu"        ? Activation::relu
           : name == "gelu_tanh" ? Activation::gelu_tanh
           : name == "gelu_erf"  ? Activation::gelu_erf
                                 : Activation::none;
}

template <class T>
void compare(double tolerance, bool forms_t) {
    for (const ReferenceCase& reference : reference_cases("linear")) {
        if (reference.text("activation") == "silu") {
            continue; // no epilogue of the fused op
        }
        std::vector<std::string> inputs{"x", "weight"};
        std::map<std::string, std::size_t> at;
        for (const char* name : {"bias", "column_scale", "residual", "a", "b"}) {
            if (reference.has(name)) {
                at[name] = inputs.size();
                inputs.push_back(name);
            }
        }
        reference.check<T>(inputs, tolerance, [&](const std::vector<Tensor<T>>& x) {
            const auto given = [&](const char* name) { return at.contains(name) ? x[at[name]] : Tensor<T>(); };
            Epilogue<T, Cpu> epilogue{given("bias"), given("column_scale"),
                                      activation_named(reference.text("activation")), given("residual")};
            std::vector<LowRankTerm<T, Cpu>> terms;
            if (at.contains("a") && forms_t) {
                terms.push_back({{}, x[at["b"]], reference.number("scale"), x[at["a"]]});
            } else if (at.contains("a")) {
                const WeightSlot<T, Cpu> a(x[at["a"]], Orientation::out_in);
                terms.push_back({linear(x[0], a), x[at["b"]], reference.number("scale")});
            }
            return linear(x[0], WeightSlot<T, Cpu>(x[1], Orientation::out_in), epilogue, terms);
        });
    }
}

} // namespace

TEST_CASE("linear equals PyTorch's composition, with every part of its epilogue") {
    for (const bool forms_t : {false, true}) {
        compare<float>(2e-6, forms_t);
        compare<double>(1e-7, forms_t);
    }
}

TEST_CASE("gradients of linear, in both orientations, with everything trained") {
    Rng rng(1);
    const auto x = random_tensor<double>({2, 3, 5}, rng), res = random_tensor<double>({2, 3, 7}, rng);
    const auto bias = random_tensor<double>({7}, rng), scale = random_tensor<double>({7}, rng);
    const auto t = random_tensor<double>({2, 3, 2}, rng), b = random_tensor<double>({7, 2}, rng);
    const auto a = random_tensor<double>({3, 5}, rng), b_of_a = random_tensor<double>({7, 3}, rng);
    for (const Orientation orientation : {Orientation::out_in, Orientation::in_out}) {
        for (const Activation activation : {Activation::none, Activation::gelu_tanh, Activation::gelu_erf}) {
            const auto w = random_tensor<double>(orientation == Orientation::out_in ? Shape{7, 5} : Shape{5, 7}, rng);
            const auto report = gradient_check(
                [&](auto x_, auto w_, auto bias_, auto scale_, auto res_, auto t_, auto b_, auto a_, auto b_of_a_) {
                    return linear(x_, WeightSlot<double, Cpu>(w_, orientation), {bias_, scale_, activation, res_},
                                  {{t_, b_, 0.7}, {{}, b_of_a_, 0.3, a_}});
                },
                x, w, bias, scale, res, t, b, a, b_of_a);
            CHECK_MESSAGE(report.ok, report.str());
        }
    }
}

TEST_CASE("gradients through a low-rank term that the linear forms, whichever of its inputs are trained") {
    Rng rng(9);
    const auto x = random_tensor<double>({6, 5}, rng), a = random_tensor<double>({2, 5}, rng);
    const auto b = random_tensor<double>({7, 2}, rng);
    const WeightSlot<double, Cpu> frozen(
        std::make_shared<DenseWeight<double, Cpu>>(random_tensor<double>({7, 5}, rng), Orientation::out_in));
    const auto adapted = [&](const auto& x_, const auto& a_, const auto& b_) {
        return linear(x_, frozen, {}, {{{}, b_, 0.3, a_}});
    };
    for (const auto& report :
         {gradient_check([&](auto x_) { return adapted(x_, a, b); }, x),
          gradient_check([&](auto a_) { return adapted(x, a_, b); }, a),
          gradient_check([&](auto b_) { return adapted(x, a, b_); }, b),
          gradient_check([&](auto x_, auto b_) { return adapted(x_, a, b_); }, x, b),
          gradient_check([&](auto x_, auto a_, auto b_) { return adapted(x_ * x_, a_, b_) + adapted(x_, a_, b_); }, x,
                         a, b)}) {
        CHECK_MESSAGE(report.ok, report.str());
    }
    CHECK_THROWS_WITH_AS(linear(x, frozen, {}, {{x, b, 0.3, a}}), doctest::Contains("with t given too"), ShapeError);
    CHECK_THROWS_WITH_AS(linear(x, frozen, {}, {{{}, b, 0.3, b}}), doctest::Contains("A [7, 2] and B [7, 2]"),
                         ShapeError);
}

TEST_CASE("gradients of an input of several linears are summed, and one that something else reads stays as it is") {
    Rng rng(8);
    const auto x = random_tensor<double>({3, 5}, rng), u = random_tensor<double>({4, 5}, rng);
    const auto v = random_tensor<double>({4, 5}, rng);
    const auto linear_of = [](const auto& from, const auto& w) {
        return linear(from, WeightSlot<double, Cpu>(w, Orientation::out_in));
    };
    const auto report = gradient_check(
        [&](auto x_, auto u_, auto v_) {
            const auto hidden = x_ * 2.0;
            const auto sum = linear_of(hidden, u_) * linear_of(hidden, v_);
            return concat({sum, sum + linear_of(hidden + hidden, u_)}, 0);
        },
        x, u, v);
    CHECK_MESSAGE(report.ok, report.str());
    const auto residual_report = gradient_check( // both inputs of the sum get the same gradient
        [&](auto x_, auto u_, auto v_) {
            const auto a = x_ * 2.0, b = x_ * 3.0;
            return linear_of(a + b, u_) + linear_of(a, v_) + linear_of(b, u_);
        },
        x, u, v);
    CHECK_MESSAGE(residual_report.ok, residual_report.str());
}

TEST_CASE("a frozen weight gives the same result and input gradient as a trained one, and gets no gradient") {
    Rng rng(2);
    const auto x = leaf(random_tensor<float>({9, 33}, rng));
    const auto w = random_tensor<float>({33, 40}, rng);
    const WeightSlot<float, Cpu> trained(leaf(w), Orientation::in_out);
    const WeightSlot<float, Cpu> frozen(std::make_shared<DenseWeight<float, Cpu>>(w, Orientation::in_out));
    const auto dy = random_tensor<float>({9, 40}, rng);
    Gradients of_trained, of_frozen;
    backward(linear(x, trained), dy, of_trained);
    const auto y = linear(x, frozen);
    CHECK(y.to_vector() == linear(x, trained).to_vector());
    backward(y, dy, of_frozen);
    CHECK(of_frozen[x].to_vector() == of_trained[x].to_vector());
    CHECK(of_trained.size() == 2);
    CHECK(of_frozen.size() == 1);
    CHECK(!linear(x.detach(), frozen).node());
}

TEST_CASE("16-bit weights are read as their values") {
    Rng rng(3);
    const auto wide = random_tensor<float>({20, 18}, rng);
    const auto x = random_tensor<float>({5, 18}, rng);
    const auto half = cast<bf16>(wide);
    const WeightSlot<float, Cpu> stored(std::make_shared<DenseWeight<bf16, Cpu>>(half, Orientation::out_in));
    const WeightSlot<float, Cpu> values(cast<float>(half), Orientation::out_in);
    CHECK(linear(x, stored).to_vector() == linear(x, values).to_vector());
}

TEST_CASE("empty and single rows, and no inputs at all") {
    Rng rng(4);
    const auto w = random_tensor<float>({3, 4}, rng);
    const WeightSlot<float, Cpu> slot(w, Orientation::out_in);
    CHECK(linear(Tensor<float>::empty({0, 4}), slot).shape() == Shape{0, 3});
    CHECK(linear(random_tensor<float>({4}, rng), slot).shape() == Shape{3});
    const auto bias = random_tensor<float>({3}, rng);
    const WeightSlot<float, Cpu> narrow(Tensor<float>::empty({3, 0}), Orientation::out_in);
    CHECK(linear(Tensor<float>::empty({1, 0}), narrow, {bias, {}, Activation::none, {}}).to_vector() ==
          bias.to_vector());
}

TEST_CASE("shapes that do not fit are named") {
    Rng rng(5);
    const WeightSlot<float, Cpu> slot(random_tensor<float>({3, 4}, rng), Orientation::out_in);
    CHECK_THROWS_WITH_AS(linear(random_tensor<float>({2, 5}, rng), slot),
                         "linear: the input's last dimension is not the weight's: input [2, 5], weight [out, in] = "
                         "[3, 4]",
                         ShapeError);
    const auto x = random_tensor<float>({2, 4}, rng);
    CHECK_THROWS_AS(linear(x, slot, {random_tensor<float>({4}, rng), {}, Activation::none, {}}), ShapeError);
    CHECK_THROWS_AS(linear(x, slot, {{}, {}, Activation::none, random_tensor<float>({3}, rng)}), ShapeError);
    CHECK_THROWS_AS(linear(x, slot, {}, {{random_tensor<float>({3, 2}, rng), random_tensor<float>({3, 2}, rng), 1.0}}),
                    ShapeError);
}
