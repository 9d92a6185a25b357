// An adapted layer is its method's formula, in value and in every gradient.

#include <array>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "lowrank/adapters/attach.hpp"
#include "lowrank/adapters/merge.hpp"
#include "reference.hpp"
#include "toy_layers.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

struct Surroundings {
    Activation activation = Activation::none;
    bool residual = false;
    double dropout = 0;
};

constexpr std::array surroundings{
    Surroundings{},
    Surroundings{Activation::gelu_tanh, false, 0},
    Surroundings{Activation::gelu_erf, true, 0},
    Surroundings{Activation::none, true, 0.4},
    Surroundings{Activation::relu, false, 0.4},
};

ForwardContext<Cpu> training_context() {
    ForwardContext<Cpu> context;
    context.training = true;
    context.seed = Tensor<std::int64_t>::scalar(99);
    return context;
}

/// PEFT's forward, written out in single operations; the norms n are constants.
X naive_forward(const Layer& layer, const LoraConfig& config, const X& x, const X& residual, const Surroundings& around,
                const X& n) {
    auto p = parameters(layer);
    const double s = lora_scale(config.lora_alpha, config.r, config.use_rslora);
    const X w = X::from(
        [&] {
            std::vector<double> flat;
            for (const auto& row : rows_of(layer)) {
                flat.insert(flat.end(), row.begin(), row.end());
            }
            return flat;
        }(),
        {layer.weight.out(), layer.weight.in()});
    const auto times = [](const X& left, const X& right) { return matmul(left, transpose(right, 0, 1)); };
    const X xd =
        around.dropout > 0 ? dropout(x, around.dropout, training_context().seed, dropout_site("l.lora_dropout")) : x;
    const X low = times(times(xd, p.at("lora_A.weight")), p.at("lora_B.weight")) * s;
    X y = times(x, w);
    if (config.use_dora) {
        const X g = p.at("lora_magnitude_vector") / n;
        y = y + (g - 1.0) * times(xd, w) + g * low;
    } else {
        y = y + low;
    }
    y = y + layer.bias;
    if (config.lora_bias) {
        y = y + p.at("lora_B.bias") * s;
    }
    switch (around.activation) {
    case Activation::relu: y = relu(y); break;
    case Activation::gelu_tanh: y = gelu(y, GeluKind::tanh); break;
    case Activation::gelu_erf: y = gelu(y, GeluKind::erf); break;
    default: break;
    }
    return around.residual ? y + residual : y;
}

} // namespace

TEST_CASE("an adapted layer is PEFT's formula, in value and in every gradient") {
    for (const Method& method : methods()) {
        for (const Orientation orientation : {Orientation::out_in, Orientation::in_out}) {
            for (const Surroundings& around : surroundings) {
                CAPTURE(method.name);
                CAPTURE(static_cast<int>(orientation));
                CAPTURE(static_cast<int>(around.activation));
                CAPTURE(around.dropout);
                LoraConfig config = method.config;
                config.lora_dropout = around.dropout;
                config.bias = BiasMode::lora_only;
                Rng rng(21, 0);
                One model{random_layer(rng, 6, 5, orientation)};
                Layer& layer = model.l;
                attach_lora<double, Cpu>(model, config, 22);
                move_vectors(layer, rng);
                const X x = leaf(random(rng, {2, 3, 5})), residual = leaf(random(rng, {2, 3, 6}));
                const X n =
                    X::from(naive_norms(layer, lora_scale(config.lora_alpha, config.r, config.use_rslora)), {6});
                const ForwardContext<Cpu> context = training_context();

                const auto fused = [&] {
                    Epilogue<double, Cpu> epilogue;
                    epilogue.activation = around.activation;
                    if (around.residual) {
                        epilogue.residual = residual;
                    }
                    return layer.forward(x, context, epilogue);
                };
                const auto naive = [&] { return naive_forward(layer, config, x, residual, around, n); };
                const X y = fused(), expected = naive();
                CHECK(relative_error(y, expected) <= 1e-13);

                const X dy = random(rng, y.shape());
                Gradients gradients, expected_gradients;
                backward(y, dy, gradients);
                backward(expected, dy, expected_gradients);
                std::map<std::string, X> leaves = parameters(layer);
                leaves.emplace("x", x);
                leaves.emplace("bias", layer.bias);
                if (around.residual) {
                    leaves.emplace("residual", residual);
                }
                for (const auto& entry : leaves) {
                    const std::string& name = entry.first;
                    const X& values = entry.second;
                    CAPTURE(name);
                    REQUIRE(gradients.find(values) != nullptr);
                    const X& gradient = *gradients.find(values);
                    CHECK(relative_error(gradient, *expected_gradients.find(values)) <= 1e-12);
                    CHECK(relative_error(gradient, numeric_gradient(values, dy, naive)) <= 1e-7);
                    // DoRA's norm depends on A and B, but no gradient flows through it.
                    const bool through_norm = config.use_dora && name.starts_with("lora_") && values.rank() == 2;
                    const double error = relative_error(gradient, numeric_gradient(values, dy, fused));
                    CHECK(through_norm == (error > 1e-3));
                    CHECK((through_norm || error <= 1e-7));
                }
            }
        }
    }
}

TEST_CASE("VeRA and IA3 are PEFT's formulas, in value, in every gradient and when merged") {
    VeraConfig vera;
    vera.r = 3;
    vera.init_weights = false; // λb = 1, λd random
    Ia3Config outputs, inputs;
    outputs.init_ia3_weights = inputs.init_ia3_weights = false;
    outputs.target_modules = inputs.target_modules = std::vector<std::string>{"l"};
    inputs.feedforward_modules = std::vector<std::string>{"l"};
    const auto times = [](const X& left, const X& right) { return matmul(left, transpose(right, 0, 1)); };
    for (const AdapterConfig& method : std::vector<AdapterConfig>{vera, outputs, inputs}) {
        for (const Orientation orientation : {Orientation::out_in, Orientation::in_out}) {
            for (const Surroundings& around : surroundings) {
                CAPTURE(method.index());
                CAPTURE(static_cast<int>(orientation));
                CAPTURE(static_cast<int>(around.activation));
                Rng rng(41, 0);
                One model{random_layer(rng, 6, 5, orientation)};
                Layer& layer = model.l;
                AdapterConfig config = method;
                if (auto* with_dropout = std::get_if<VeraConfig>(&config)) {
                    with_dropout->vera_dropout = around.dropout;
                }
                attach_adapter<double, Cpu>(model, config, 42);
                std::map<std::string, X> p = parameters(layer);
                layer.adapter->shared_tensors([&](const std::string& name, X& values) { p.emplace(name, values); });
                const X x = leaf(random(rng, {2, 3, 5})), residual = leaf(random(rng, {2, 3, 6}));
                const X w = layer.weight.frozen()->dense_copy<double>();
                const X rows = orientation == Orientation::out_in ? w : contiguous(transpose(w, 0, 1));
                const ForwardContext<Cpu> context = training_context();

                const auto fused = [&](const ForwardContext<Cpu>& how) {
                    Epilogue<double, Cpu> epilogue;
                    epilogue.activation = around.activation;
                    if (around.residual) {
                        epilogue.residual = residual;
                    }
                    return layer.forward(x, how, epilogue);
                };
                X y;
                if (method.index() == AdapterConfig(vera).index()) {
                    const X xd = around.dropout > 0
                                     ? dropout(x, around.dropout, context.seed, dropout_site("l.vera_dropout"))
                                     : x;
                    const X low =
                        times(times(xd, p.at("base_model.vera_A")) * p.at("vera_lambda_d"), p.at("base_model.vera_B"));
                    y = times(x, rows) + layer.bias + low * p.at("vera_lambda_b");
                } else {
                    const X l = p.at("ia3_l");
                    const X flat = reshape(l, {l.numel()});
                    y = l.size(0) == 1 ? times(x * flat, rows) + layer.bias : (times(x, rows) + layer.bias) * flat;
                }
                switch (around.activation) {
                case Activation::relu: y = relu(y); break;
                case Activation::gelu_tanh: y = gelu(y, GeluKind::tanh); break;
                case Activation::gelu_erf: y = gelu(y, GeluKind::erf); break;
                default: break;
                }
                const X expected = around.residual ? y + residual : y;
                const X found = fused(context);
                CHECK(relative_error(found, expected) <= 1e-13);

                const X dy = random(rng, found.shape());
                Gradients gradients;
                backward(found, dy, gradients);
                std::map<std::string, X> leaves = parameters(layer);
                leaves.emplace("x", x);
                if (around.residual) {
                    leaves.emplace("residual", residual);
                }
                for (const auto& entry : leaves) {
                    CAPTURE(entry.first);
                    const X& values = entry.second;
                    REQUIRE(gradients.find(values) != nullptr);
                    const X numeric = numeric_gradient(values, dy, [&] { return fused(context); });
                    CHECK(relative_error(*gradients.find(values), numeric) <= 1e-7);
                }
                CHECK(gradients.find(layer.bias) == nullptr);

                const X adapted = fused({});
                MergedAdapters merged = merge<double, Cpu>(model);
                CHECK(relative_error(fused({}), adapted) <= 1e-13);
                merged.unmerge();
                CHECK(fused({}).to_vector() == adapted.to_vector());
            }
        }
    }
}

TEST_CASE("VeRA's layers share the projections, each its part") {
    Toy toy(3);
    VeraConfig config;
    config.r = 4;
    attach_adapter<double, Cpu>(toy, config, 5);
    const auto shared = [](const Layer& layer) {
        std::map<std::string, X> found;
        layer.adapter->shared_tensors([&](const std::string& name, X& values) { found.emplace(name, values); });
        return found;
    };
    auto up = shared(toy.up), down = shared(toy.down);
    CHECK(up.at("base_model.vera_A").shape() == Shape{4, 6}); // the widest input, the most outputs
    CHECK(up.at("base_model.vera_B").shape() == Shape{6, 4});
    for (const char* name : {"base_model.vera_A", "base_model.vera_B"}) {
        CHECK(up.at(name).data() == down.at(name).data());
        CHECK_FALSE(up.at(name).node());
    }
    Toy other(3); // another seed of the adapter, the same projections: they have a key of their own
    attach_adapter<double, Cpu>(other, config, 6);
    CHECK(shared(other.up).at("base_model.vera_A").to_vector() == up.at("base_model.vera_A").to_vector());
    config.projection_prng_key = 1;
    attach_adapter<double, Cpu>(other, config, 6);
    CHECK(shared(other.up).at("base_model.vera_A").to_vector() != up.at("base_model.vera_A").to_vector());
}
