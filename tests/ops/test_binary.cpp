#include <doctest/doctest.h>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/math/list.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/ops/reduce.hpp"
#include "reference.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using X = Tensor<double>;

template <class T>
void compare(double tolerance) {
    math::for_each(math::BinaryOps{}, [&]<class Op>(std::type_identity<Op>) {
        for (const ReferenceCase& reference : reference_cases(Op::name)) {
            reference.check<T>({"a", "b"}, tolerance, [](const auto& x) { return binary(Op{}, x[0], x[1]); });
        }
    });
}

} // namespace

TEST_CASE("binary ops equal PyTorch's, with broadcasting") {
    compare<double>(1e-7);
    compare<float>(1e-6);
}

TEST_CASE("gradients of binary ops") {
    const X a = X::from({0.3, -1.7, 0.9, 2.5, -0.6, 1.1}, {2, 3}), b = X::from({1.5, -0.8, 2.0}, {3, 1});
    math::for_each(math::BinaryOps{}, [&]<class Op>(std::type_identity<Op>) {
        const bool positive = std::string(Op::name) == "pow";
        const auto f = [](const X& x, const X& y) { return binary(Op{}, x, transpose(y)); };
        const auto report = gradient_check(f, positive ? X(a * a) : a, b);
        CHECK_MESSAGE(report.ok, Op::name, ": ", report.str());
    });
    const auto report = gradient_check([](const X& x) { return 2.0 * x - x * x / 3.0 + 1.0 / x - (0.5 - x) + -x; }, a);
    CHECK_MESSAGE(report.ok, report.str());
}

TEST_CASE("operators with numbers") {
    const auto x = Tensor<float>::from({1.0f, 2.0f, -4.0f}, {3});
    using V = std::vector<float>;
    CHECK((x + 1).to_vector() == V{2, 3, -3});
    CHECK((1 + x).to_vector() == V{2, 3, -3});
    CHECK((x - 1).to_vector() == V{0, 1, -5});
    CHECK((1 - x).to_vector() == V{0, -1, 5});
    CHECK((x * 2.5).to_vector() == V{2.5, 5, -10});
    CHECK((2.5 * x).to_vector() == V{2.5, 5, -10});
    CHECK((x / 3).to_vector() == V{1.0f / 3, 2.0f / 3, -4.0f / 3});
    CHECK((3 / x).to_vector() == V{3, 1.5, -0.75});
    CHECK((-x).to_vector() == V{-1, -2, 4});
    CHECK((x + x * x - x / x).to_vector() == V{1, 5, 11});
    // A number is not rounded to bf16, only the result is.
    CHECK(static_cast<float>((Tensor<bf16>::scalar(bf16(1000.0f)) * 0.1).item()) == 100.0f);
}

TEST_CASE("shapes that do not broadcast are named") {
    CHECK_THROWS_WITH_AS(add(Tensor<float>::zeros({4, 8}), Tensor<float>::zeros({16, 3})),
                         "add: shapes do not broadcast: lhs [4, 8], rhs [16, 3] (4 vs 16)", ShapeError);
}

TEST_CASE("an unread input is not saved") {
    auto a = Tensor<float>::from({1, 2}, {2}), frozen = Tensor<float>::from({3, 4}, {2});
    const auto x = leaf(a);
    const auto y = x * frozen + frozen;
    a.mutable_data()[0] = 7; // its gradient needs frozen only
    CHECK(backward(sum(y))[x].to_vector() == std::vector<float>{3, 4});
}
