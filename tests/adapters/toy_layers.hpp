// Small layers and models in double for the tests of adapters, in both orientations, with every kind of LoRA.
#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lowrank/adapters/attach.hpp"

namespace lowrank::testing {

using X = Tensor<double>;
using Layer = Linear<double, Cpu>;

inline X random(Rng& rng, const Shape& shape, double scale = 1) {
    return detail::drawn<double, Cpu>(shape, [&] { return scale * rng.normal(); });
}

inline Layer random_layer(Rng& rng, std::int64_t out, std::int64_t in, Orientation orientation) {
    Layer layer;
    const X values = random(rng, orientation == Orientation::out_in ? Shape{out, in} : Shape{in, out}, 0.4);
    layer.weight = std::make_shared<DenseWeight<double, Cpu>>(values, orientation);
    layer.bias = random(rng, {out});
    return layer;
}

/// Two layers, one in each orientation, with what a block has around them.
struct Toy {
    Layer up, down;

    explicit Toy(std::uint64_t seed) {
        Rng rng(seed, 0);
        up = random_layer(rng, 6, 5, Orientation::out_in);
        down = random_layer(rng, 5, 6, Orientation::in_out);
    }
    template <class Visit>
    void fields(Visit&& visit) {
        visit("up", up);
        visit("down", down);
    }
    static std::vector<std::string> default_target_modules() { return {"up", "down"}; }
    static bool is_head(const std::string&) { return false; }

    X forward(const X& x, const ForwardContext<Cpu>& context = {}) const {
        Epilogue<double, Cpu> gelu, residual;
        gelu.activation = Activation::gelu_tanh;
        residual.residual = x;
        return down.forward(up.forward(x, context, gelu), context, residual);
    }
};

/// A single layer.
struct One {
    Layer l;

    template <class Visit>
    void fields(Visit&& visit) {
        visit("l", l);
    }
    static std::vector<std::string> default_target_modules() { return {"l"}; }
};

struct Method {
    const char* name;
    LoraConfig config;
};

/// Every kind of adapter, α ≠ r and B ≠ 0.
inline std::vector<Method> methods() {
    LoraConfig lora;
    lora.r = 3;
    lora.lora_alpha = 5;
    lora.init_lora_weights = LoraInit::random;
    std::vector<Method> all(5, {"lora", lora});
    all[1].name = "rslora";
    all[1].config.use_rslora = true;
    all[2].name = "dora";
    all[2].config.use_dora = true;
    all[3].name = "rsdora";
    all[3].config.use_rslora = all[3].config.use_dora = true;
    all[4].name = "lora_bias";
    all[4].config.lora_bias = true;
    return all;
}

/// The adapter's tensors, by name.
inline std::map<std::string, X> parameters(const Layer& layer) {
    std::map<std::string, X> found;
    layer.adapter->parameters([&](const std::string& name, X& values) { found.emplace(name, values); });
    return found;
}

/// Moves magnitudes and biases off their starting values, in place.
inline void move_vectors(const Layer& layer, Rng& rng) {
    for (auto& [name, values] : parameters(layer)) {
        if (values.rank() == 1) {
            X live = values;
            for (std::int64_t i = 0; i < live.numel(); ++i) {
                live.mutable_data()[i] = live.data()[i] * (1 + 0.2 * rng.normal()) + 0.1 * std::abs(rng.normal());
            }
        }
    }
}

inline Toy adapted_toy(const LoraConfig& config) {
    Toy toy(3);
    attach_lora<double, Cpu>(toy, config, 17);
    Rng rng(4, 0);
    move_vectors(toy.up, rng);
    move_vectors(toy.down, rng);
    return toy;
}

/// W as [out][in], whatever its orientation.
inline std::vector<std::vector<double>> rows_of(const Layer& layer) {
    std::vector<std::vector<double>> rows;
    for (std::int64_t o = 0; o < layer.weight.out(); ++o) {
        rows.emplace_back(static_cast<std::size_t>(layer.weight.in()));
        layer.weight.frozen()->read({o, 1, 0, layer.weight.in(), layer.weight.in(), 1}, rows.back().data());
    }
    return rows;
}

/// ‖W + s·BA‖ of every row, by loops.
inline std::vector<double> naive_norms(const Layer& layer, double s) {
    const auto w = rows_of(layer);
    const auto p = parameters(layer);
    const X a = p.at("lora_A.weight"), b = p.at("lora_B.weight");
    const std::int64_t r = a.size(0), in = a.size(1);
    std::vector<double> norms;
    for (std::int64_t o = 0; o < b.size(0); ++o) {
        double sum = 0;
        for (std::int64_t i = 0; i < in; ++i) {
            double value = w[static_cast<std::size_t>(o)][static_cast<std::size_t>(i)];
            for (std::int64_t k = 0; k < r; ++k) {
                value += s * b.data()[o * r + k] * a.data()[k * in + i];
            }
            sum += value * value;
        }
        norms.push_back(std::sqrt(sum));
    }
    return norms;
}

/// Σ y·w.
inline double contracted(const X& y, const X& w) {
    double total = 0;
    for (std::int64_t i = 0; i < y.numel(); ++i) {
        total += y.data()[i] * w.data()[i];
    }
    return total;
}

/// The gradient of Σ f()·w with respect to a leaf, by central differences: its values are moved in place.
template <class F>
X numeric_gradient(X values, const X& w, const F& f) {
    const NoGrad no_grad;
    constexpr double h = 1e-5;
    std::vector<double> gradient;
    for (std::int64_t i = 0; i < values.numel(); ++i) {
        const double at = values.data()[i];
        values.mutable_data()[i] = at + h;
        const double up = contracted(f(), w);
        values.mutable_data()[i] = at - h;
        gradient.push_back((up - contracted(f(), w)) / (2 * h));
        values.mutable_data()[i] = at;
    }
    return X::from(gradient, values.shape());
}

} // namespace lowrank::testing
