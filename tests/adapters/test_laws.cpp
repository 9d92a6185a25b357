// What must hold for every adapter: its formula and gradients, merge and its undoing, how it starts.

#include <array>
#include <cmath>
#include <map>
#include <vector>

#include "lowrank/adapters/attach.hpp"
#include "lowrank/adapters/merge.hpp"
#include "reference.hpp"

using namespace lowrank;
using lowrank::testing::relative_error;

namespace {

using X = Tensor<double>;
using Layer = Linear<double, Cpu>;

X random(Rng& rng, const Shape& shape, double scale = 1) {
    return detail::drawn<double, Cpu>(shape, [&] { return scale * rng.normal(); });
}

Layer random_layer(Rng& rng, std::int64_t out, std::int64_t in, Orientation orientation) {
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
std::vector<Method> methods() {
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
std::map<std::string, X> parameters(const Layer& layer) {
    std::map<std::string, X> found;
    layer.adapter->parameters([&](const std::string& name, X& values) { found.emplace(name, values); });
    return found;
}

/// Moves magnitudes and biases off their starting values, in place.
void move_vectors(const Layer& layer, Rng& rng) {
    for (auto& [name, values] : parameters(layer)) {
        if (values.rank() == 1) {
            X live = values;
            for (std::int64_t i = 0; i < live.numel(); ++i) {
                live.mutable_data()[i] = live.data()[i] * (1 + 0.2 * rng.normal()) + 0.1 * std::abs(rng.normal());
            }
        }
    }
}

Toy adapted_toy(const LoraConfig& config) {
    Toy toy(3);
    attach_lora<double, Cpu>(toy, config, 17);
    Rng rng(4, 0);
    move_vectors(toy.up, rng);
    move_vectors(toy.down, rng);
    return toy;
}

/// W as [out][in], whatever its orientation.
std::vector<std::vector<double>> rows_of(const Layer& layer) {
    std::vector<std::vector<double>> rows;
    for (std::int64_t o = 0; o < layer.weight.out(); ++o) {
        rows.emplace_back(static_cast<std::size_t>(layer.weight.in()));
        layer.weight.frozen()->read({o, 1, 0, layer.weight.in(), layer.weight.in(), 1}, rows.back().data());
    }
    return rows;
}

/// ‖W + s·BA‖ of every row, by loops.
std::vector<double> naive_norms(const Layer& layer, double s) {
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

double contracted(const X& y, const X& w) {
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

TEST_CASE("a merged model computes what the adapted one did, and unmerging brings the same objects back") {
    for (const Method& method : methods()) {
        CAPTURE(method.name);
        Toy toy = adapted_toy(method.config);
        Rng rng(5, 0);
        const X x = random(rng, {4, 5});
        const X before = toy.forward(x);
        CHECK(relative_error(before, Toy(3).forward(x)) > 1e-2); // the adapter matters
        const Toy kept = toy;
        const X old_weight = kept.up.weight.frozen()->dense_copy<double>();

        MergedAdapters merged = merge<double, Cpu>(toy);
        CHECK(merged.size() == 2);
        CHECK(toy.up.adapter == nullptr);
        CHECK(toy.up.weight.orientation() == Orientation::out_in);
        CHECK(toy.down.weight.orientation() == Orientation::in_out);
        CHECK(relative_error(toy.forward(x), before) <= 1e-13);
        CHECK(kept.up.weight.frozen()->dense_copy<double>().to_vector() == old_weight.to_vector());

        merged.unmerge();
        for (const auto& [now, then] : {std::pair(&toy.up, &kept.up), std::pair(&toy.down, &kept.down)}) {
            CHECK(now->weight.frozen() == then->weight.frozen());
            CHECK(now->adapter == then->adapter);
            CHECK(now->bias.data() == then->bias.data());
        }
        CHECK(toy.forward(x).to_vector() == before.to_vector());
        CHECK(merged.size() == 0);
    }
}

TEST_CASE("a merge that is not finite names the layer and changes nothing") {
    Toy toy = adapted_toy(methods()[0].config);
    parameters(toy.down).at("lora_A.weight").mutable_data()[0] = INFINITY;
    const Toy kept = toy;
    try {
        merge<double, Cpu>(toy);
        FAIL("merged");
    } catch (const NumericError& error) {
        CHECK(std::string(error.what()).find("down") != std::string::npos);
    }
    CHECK(toy.up.weight.frozen() == kept.up.weight.frozen());
    CHECK(toy.up.adapter == kept.up.adapter);
    CHECK(toy.down.adapter == kept.down.adapter);
}

TEST_CASE("a frozen weight gets no gradient, and nothing is saved for one") {
    Rng rng(8, 0);
    Layer layer = random_layer(rng, 6, 5, Orientation::out_in);
    const auto memory = std::make_shared<std::vector<double>>(random(rng, {3, 5}).to_vector());
    X x = leaf(X::map(memory->data(), {3, 5}, memory));
    const X y = layer.forward(x, {});
    REQUIRE(y.node() != nullptr);
    const X key = X::zeros({3, 5}).with_node(x.node());
    x = X();
    CHECK(memory.use_count() == 1); // the layer's rule kept no input
    const Gradients gradients = backward(sum(y, {0, 1}));
    CHECK(gradients.find(key) != nullptr);
    CHECK_FALSE(trained_values(layer.weight).defined());
    CHECK_FALSE(trained_values(layer.bias).defined());

    Toy toy = adapted_toy(methods()[0].config);
    std::vector<std::string> names;
    for (const auto& tensor : trainable_tensors<double, Cpu>(toy)) {
        names.push_back(tensor.name);
    }
    CHECK(names ==
          std::vector<std::string>{"up.lora_A.weight", "up.lora_B.weight", "down.lora_A.weight", "down.lora_B.weight"});
    CHECK_FALSE(layer.forward(key.detach(), {}).node()); // nothing trained, nothing recorded
}

TEST_CASE("factors start as PEFT draws them, and an adapter that starts changes nothing") {
    Rng rng(30, 0);
    One model{random_layer(rng, 40, 400, Orientation::in_out)};
    Layer& layer = model.l;
    const X x = random(rng, {2, 400});
    const X base = layer.forward(x, {});
    LoraConfig config;
    config.r = 50;
    const auto start = [&](LoraInit init) {
        config.init_lora_weights = init;
        attach_lora<double, Cpu>(model, config, 31);
        return parameters(layer);
    };
    const auto moments = [](const X& values) {
        double largest = 0, mean = 0, square = 0;
        for (const double value : values.to_vector()) {
            largest = std::max(largest, std::abs(value));
            mean += value / static_cast<double>(values.numel());
            square += value * value / static_cast<double>(values.numel());
        }
        return std::array{largest, mean, std::sqrt(square)};
    };

    auto p = start(LoraInit::kaiming);
    CHECK(p.at("lora_A.weight").shape() == Shape{50, 400});
    CHECK(p.at("lora_B.weight").to_vector() == std::vector<double>(40 * 50, 0.0));
    auto [largest, mean, deviation] = moments(p.at("lora_A.weight"));
    CHECK(largest <= 0.05); // 1/√400
    CHECK(largest > 0.0499);
    CHECK(std::abs(mean) < 1e-3);
    CHECK(deviation == doctest::Approx(0.05 / std::sqrt(3)).epsilon(0.02));
    CHECK(layer.forward(x, {}).to_vector() == base.to_vector());

    p = start(LoraInit::gaussian);
    CHECK(moments(p.at("lora_A.weight"))[2] == doctest::Approx(1.0 / 50).epsilon(0.02));
    CHECK(moments(p.at("lora_B.weight"))[0] == 0);

    p = start(LoraInit::random);
    const auto b = moments(p.at("lora_B.weight"));
    CHECK(b[0] <= 1 / std::sqrt(50.0));
    CHECK(b[0] > 0.99 / std::sqrt(50.0));

    config.use_dora = true;
    p = start(LoraInit::kaiming);
    CHECK(relative_error(layer.forward(x, {}), base) <= 1e-14);
    CHECK(relative_error(p.at("lora_magnitude_vector"), X::from(naive_norms(layer, 1), {40})) <= 1e-14);
}

TEST_CASE("a seed fixes the factors of a layer, whatever else is adapted") {
    const auto factor = [](std::uint64_t seed, std::vector<std::string> targets, bool up) {
        Toy toy(1);
        LoraConfig config;
        config.target_modules = targets;
        attach_lora<double, Cpu>(toy, config, seed);
        return parameters(up ? toy.up : toy.down).at("lora_A.weight").to_vector();
    };
    const auto both = factor(6, {"up", "down"}, false);
    CHECK(factor(6, {"up", "down"}, false) == both);
    CHECK(factor(6, {"down"}, false) == both);
    CHECK(factor(7, {"down"}, false) != both);
    CHECK(factor(6, {"up", "down"}, true)[0] != both[0]);
}
