#include <doctest/doctest.h>
#include <map>

#include "lowrank/math/list.hpp"
#include "lowrank/ops/cast.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "reference.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

// Relative to the greatest value of the case. Near the ends of the range of exp, one unit in the last place of x
// already moves y by more.
template <class T>
constexpr double tolerance = std::is_same_v<T, double> ? 1e-7 : std::is_same_v<T, float> ? 1e-6 : 1e-2;

template <class T>
void check_all() {
    const std::map<std::string, int> without_reference{{"rsqrt", 0}, {"abs", 0}};
    math::for_each(math::UnaryOps{}, [&]<class Op>(std::type_identity<Op>) {
        if (without_reference.count(Op::name) == 0) {
            for (const ReferenceCase& reference : reference_cases(Op::name)) {
                reference.check<T>({"x"}, tolerance<T>, [](const auto& x) { return unary(Op{}, x[0]); });
            }
        }
    });
}

} // namespace

TEST_CASE("unary ops of double equal PyTorch's") {
    check_all<double>();
}
TEST_CASE("unary ops of float equal PyTorch's") {
    check_all<float>();
}
