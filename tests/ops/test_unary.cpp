#include <doctest/doctest.h>
#include <map>
#include <string>

#include "lowrank/autograd/gradient_check.hpp"
#include "lowrank/math/list.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "reference.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using X = Tensor<double>;

// Compares with PyTorch's values where the fixtures have them. Tolerances are relative to the greatest value of a case.
template <class T>
void compare(double usual, const std::map<std::string, double>& tolerances) {
    math::for_each(math::UnaryOps{}, [&]<class Op>(std::type_identity<Op>) {
        const std::string name = Op::name;
        if (name == "rsqrt" || name == "abs") {
            return;
        }
        const auto own = tolerances.find(name);
        for (const ReferenceCase& reference : reference_cases(name)) {
            reference.check<T>({"x"}, own == tolerances.end() ? usual : own->second,
                               [](const auto& x) { return unary(Op{}, x[0]); });
        }
    });
}

} // namespace

TEST_CASE("unary ops of double equal PyTorch's, and their gradients central differences") {
    compare<double>(1e-7, {}); // the fixtures are rounded to float
    const X x = X::from({0.3, 1.7, 0.9, 2.5, 0.05, 1.1}, {2, 3});
    GradientCheckOptions options;
    options.tolerance = 1e-6;
    math::for_each(math::UnaryOps{}, [&]<class Op>(std::type_identity<Op>) {
        const bool positive = std::string(Op::name) == "log" || std::string(Op::name).find("sqrt") < 9;
        const X input = positive ? x : (X::scalar(0.7) - x);
        const auto report =
            gradient_check([](const X& a) { return unary(Op{}, a); }, options, input.as_strided({3, 2}, {1, 3}));
        CHECK_MESSAGE(report.ok, Op::name, ": ", report.str());
    });
}

TEST_CASE("unary ops of float equal PyTorch's") {
    // 1 + erf(x / √2) cancels where x is far below 0, here as in PyTorch.
    compare<float>(1e-6, {{"tanh", 2e-6}, {"gelu_erf", 3e-5}});
}
