// custom_op: two ops of one's own, a formula and a value with a rule, and the check of their gradients.

#include <cstdio>

#include <lowrank/lowrank.hpp>

using namespace lowrank;

/// A formula: log(1 + e^x).
struct Softplus {
    static constexpr const char* name = "softplus";
    static constexpr math::Saves saves = math::Saves::input; // df gets x
    template <class V>
    LOWRANK_HD static V f(V x) {
        using math::exp, math::log;
        return log(V(1) + exp(x));
    }
    template <class V>
    LOWRANK_HD static V df(V x) {
        using math::exp;
        return V(1) / (V(1) + exp(-x));
    }
};

/// A value and a rule: the outer product of a [m] and b [n], y [m, n].
template <class T, DeviceTag D>
Tensor<T, D> outer(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    const auto column = unsqueeze(a.detach(), 1), row = unsqueeze(b.detach(), 0);
    const auto rule = [column = save(column), row = save(row)](const Tensor<T, D>& dy) {
        return std::tuple(sum(dy * row.get(), {1}), sum(dy * column.get(), {0}));
    };
    return custom_op(column * row, rule, a, b);
}

int main() {
    const auto softplus = [](const auto& x) { return unary(Softplus{}, x); };
    const auto y = softplus(Tensor<float>::from({0, 1}, {2})).to_vector();
    std::printf("softplus(0) = %.6f, softplus(1) = %.6f\n", y[0], y[1]);

    const auto a = Tensor<double>::from({1, -2}, {2}), b = Tensor<double>::from({0.5, 3, 4}, {3});
    const auto table = outer(a, b).to_vector();
    std::printf("outer: %g %g %g | %g %g %g\n", table[0], table[1], table[2], table[3], table[4], table[5]);

    // Ops of one's own work with all others, and in double their gradients can be checked.
    const auto f = [&](const auto& p, const auto& q) { return softplus(outer(p, q)); };
    const GradientCheckReport report = gradient_check(f, a, b);
    std::printf("gradients: %s\n", report.ok ? "ok" : report.str().c_str());
    return report.ok ? 0 : 1;
}
