// gradient_check: compares the gradients that backward gives with central differences, in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/autograd/backward.hpp"
#include "lowrank/core/random.hpp"

namespace lowrank {

/// How gradient_check compares.
struct GradientCheckOptions {
    /// The step of the central difference is step · max(1, |x|). Its own error is about step² + 1e-16 / step.
    double step = 1e-5;
    /// Allowed |analytic − numeric|, relative to the larger of 1 and the greatest gradient of that input.
    double tolerance = 1e-7;
    /// Seed of the upstream gradient.
    std::uint64_t seed = 1;
    /// Elements of each input that are checked: all of them when it has no more, otherwise evenly spread.
    std::int64_t samples = 200;
};

/// What gradient_check found: the element that differs most.
struct GradientCheckReport {
    bool ok = true;
    int input = 0;          ///< which argument, from 0
    std::int64_t index = 0; ///< which of its elements, in row-major order
    double analytic = 0, numeric = 0;
    double error = 0; ///< relative, as GradientCheckOptions::tolerance

    /// "input 1, element 7: backward gives 0.5, central differences 0.25 (error 0.25)"
    std::string str() const {
        char text[200];
        std::snprintf(text, sizeof text,
                      "input %d, element %lld: backward gives %.10g, central differences %.10g (error %.3g)", input,
                      static_cast<long long>(index), analytic, numeric, error);
        return text;
    }
};

namespace detail {

/// Σ y·w over all elements, on the host. Any layout.
template <DeviceTag D>
double contract(const Tensor<double, D>& y, const std::vector<double>& weights) {
    const std::vector<double> values = clone(y).to_vector();
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        sum += values[i] * weights[i];
    }
    return sum;
}

/// gradient_check of a function of a list, compiled once for all functions.
template <DeviceTag D>
GradientCheckReport check_gradients(const std::function<Tensor<double, D>(const std::vector<Tensor<double, D>>&)>& f,
                                    const GradientCheckOptions& options,
                                    const std::vector<Tensor<double, D>>& values_of_inputs) {
    using X = Tensor<double, D>;
    std::vector<X> inputs;
    for (const X& values : values_of_inputs) {
        inputs.push_back(leaf(clone(values)));
    }
    const X y = f(inputs);
    Rng rng(options.seed);
    std::vector<double> weights(static_cast<std::size_t>(y.numel()));
    for (double& w : weights) {
        w = rng.uniform(-1.0, 1.0);
    }
    Gradients gradients;
    backward(y, X::from(weights, y.shape()), gradients);

    const NoGrad no_grad;
    GradientCheckReport worst;
    for (std::size_t k = 0; k < inputs.size(); ++k) {
        const Shape shape = inputs[k].shape();
        const X* found = gradients.find(inputs[k]);
        const std::int64_t count = inputs[k].numel();
        std::vector<double> values = inputs[k].to_vector();
        const std::vector<double> analytic = found ? found->to_vector() : std::vector<double>(values.size(), 0.0);
        double scale = 1.0;
        for (const double value : analytic) {
            scale = std::max(scale, std::abs(value));
        }
        const std::int64_t samples = std::min(count, options.samples);
        for (std::int64_t s = 0; s < samples; ++s) {
            const std::int64_t index = samples == count ? s : s * count / samples;
            const auto i = static_cast<std::size_t>(index);
            const double x = values[i], h = options.step * std::max(1.0, std::abs(x));
            const auto at = [&](double moved) {
                values[i] = moved;
                std::vector<X> other = inputs;
                other[k] = X::from(values, shape);
                return contract(f(other), weights);
            };
            const double up = x + h, down = x - h; // rounded: so what they differ by is not quite 2h
            const double numeric = (at(up) - at(down)) / (up - down);
            values[i] = x;
            const double error = std::abs(analytic[i] - numeric) / scale;
            if (!(error <= worst.error)) { // a NaN counts as the worst
                worst = {error <= options.tolerance,
                         static_cast<int>(k),
                         index,
                         analytic[i],
                         numeric,
                         std::isnan(error) ? std::numeric_limits<double>::infinity() : error};
            }
        }
    }
    return worst;
}

} // namespace detail

/// Checks the gradient rules of y = f(inputs…) for tensors of double. y may have any shape: it is contracted with a
/// fixed random upstream gradient w, and d(Σ w·y)/dx of every input is compared with a central difference, element
/// by element. Use inputs away from kinks (relu at 0). f must be a pure function.
///
///   const auto report = gradient_check([](auto a, auto b) { return mul(a, b); }, GradientCheckOptions{}, a, b);
///   CHECK_MESSAGE(report.ok, report.str());
template <class Function, DeviceTag D, class... Rest>
GradientCheckReport gradient_check(const Function& f, const GradientCheckOptions& options,
                                   const Tensor<double, D>& first, const Rest&... rest) {
    using X = Tensor<double, D>;
    const auto call = [&f]<std::size_t... I>(const std::vector<X>& x, std::index_sequence<I...>) {
        return f(x[I]...);
    };
    return detail::check_gradients<D>(
        [&](const std::vector<X>& x) { return call(x, std::make_index_sequence<1 + sizeof...(Rest)>()); }, options,
        {first, rest...});
}

/// The same with the default options.
template <class Function, DeviceTag D, class... Rest>
GradientCheckReport gradient_check(const Function& f, const Tensor<double, D>& first, const Rest&... rest) {
    return gradient_check(f, GradientCheckOptions{}, first, rest...);
}

} // namespace lowrank
