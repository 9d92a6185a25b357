// Reads tests/fixtures/ops_reference.safetensors: inputs, outputs and gradients of ops, computed by PyTorch.
#pragma once

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <functional>
#include <string>
#include <vector>

#include "lowrank/autograd/backward.hpp"

namespace lowrank::testing {

/// max|found - expected| / max|expected|; infinities and NaN must meet their like. Shapes must be equal.
template <class T, class R>
double relative_error(const Tensor<T>& found, const Tensor<R>& expected) {
    REQUIRE(found.shape() == expected.shape());
    const std::vector<T> f = detail::clone(found).to_vector();
    const std::vector<R> e = detail::clone(expected).to_vector();
    double difference = 0, scale = 0;
    for (std::size_t i = 0; i < f.size(); ++i) {
        const double a = convert<double>(f[i]), b = convert<double>(e[i]);
        if (a == b || (std::isnan(a) && std::isnan(b))) {
            scale = std::max(scale, std::isfinite(b) ? std::abs(b) : 0);
        } else if (!std::isfinite(a) || !std::isfinite(b)) {
            return INFINITY;
        } else {
            difference = std::max(difference, std::abs(a - b));
            scale = std::max(scale, std::abs(b));
        }
    }
    return difference == 0 ? 0 : difference / scale;
}

/// One case of an op, as tests/fixtures/README.md describes: its tensors and its settings.
class ReferenceCase {
  public:
    explicit ReferenceCase(std::string name) : name_(std::move(name)) {}

    /// "<op>.<case>"
    const std::string& name() const { return name_; }

    bool has(const std::string& tensor) const;
    double number(const std::string& setting) const;
    bool flag(const std::string& setting) const { return number(setting) != 0; }
    std::string text(const std::string& setting) const;
    std::vector<std::int64_t> list(const std::string& setting) const;

    /// A tensor of the case, converted to T.
    template <class T>
    Tensor<T> tensor(const std::string& which) const {
        const Values values = read(which);
        std::vector<T> converted;
        for (const double value : values.values) {
            converted.push_back(convert<T>(value));
        }
        return Tensor<T>::from(converted, values.shape);
    }

    /// Checks f(inputs…) against y, and the gradients of f against d<input>, f taking a vector of leaves of T, one for
    /// each name in `inputs`. `tolerance` bounds relative_error.
    template <class T>
    void check(const std::vector<std::string>& inputs, double tolerance,
               const std::function<Tensor<T>(const std::vector<Tensor<T>>&)>& f) const {
        CAPTURE(name_);
        std::vector<Tensor<T>> leaves;
        for (const std::string& input : inputs) {
            leaves.push_back(leaf(tensor<T>(input)));
        }
        const Tensor<T> y = f(leaves);
        CHECK(relative_error(y, tensor<double>("y")) <= tolerance);
        Gradients gradients;
        backward(y, tensor<T>("dy"), gradients);
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            CAPTURE(inputs[i]);
            const Tensor<double> gradient = tensor<double>("d" + inputs[i]);
            const Tensor<T>* found = gradients.find(leaves[i]);
            CHECK(relative_error(found ? *found : Tensor<T>::zeros(gradient.shape()), gradient) <= tolerance);
        }
    }

  private:
    struct Values {
        std::vector<double> values;
        Shape shape;
    };
    Values read(const std::string& tensor) const;

    std::string name_;
};

/// The cases of an op. Fails the test when there are none.
std::vector<ReferenceCase> reference_cases(const std::string& op);

} // namespace lowrank::testing
