// What must hold for every adapter: merge and its undoing, what is trained, how it starts.

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
