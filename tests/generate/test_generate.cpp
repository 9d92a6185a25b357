// Generation: with the keys and values of the past kept, the same as without; and how it ends.

#include <algorithm>
#include <limits>

#include "io/temporary_directory.hpp"
#include "lowrank/generate/generate.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"
#include "models_testing.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

using Ids = std::vector<std::int32_t>;

Tensor<std::int32_t> one_row(const Ids& ids) {
    return Tensor<std::int32_t>::from(ids, {1, static_cast<std::int64_t>(ids.size())});
}

/// The logits of the last position, computed from the start.
Tensor<float> uncached_logits(const Gpt2<float>& model, const Ids& ids) {
    const Tensor<float> states = model.hidden(one_row(ids));
    return model.logits(slice(states, 1, states.size(1) - 1));
}

struct Result {
    Ids ids;
    StopReason reason;
};

Result run(const Gpt2<float>& model, const Ids& prompt, std::int64_t count, const SamplerOptions& options,
           std::optional<std::int32_t> eos = {}, std::size_t stop_after = 1000) {
    Sampler sampler(options);
    Result result{};
    result.reason = generate<float, Cpu>(model, prompt, count, eos, sampler, [&](std::int32_t id) {
        result.ids.push_back(id);
        return result.ids.size() < stop_after;
    });
    return result;
}

SamplerOptions greedy() {
    SamplerOptions options;
    options.greedy = true;
    return options;
}

const Ids prompt{5, 80, 3, 41, 7};

} // namespace

TEST_CASE("cached logits are those without a cache, token by token and in pieces") {
    const NoGrad no_grad;
    for (const char* name : {"gpt2_tied", "gpt2_untied", "gpt2_inverse_layer"}) {
        CAPTURE(name);
        const Gpt2<float> model = load_gpt2<float>(fixture(name));
        auto caches = model.make_caches(1, 25);
        Ids past, input = prompt;
        for (const std::size_t step : {1, 1, 3, 1, 7, 1, 1, 5}) { // how many tokens the next piece has
            past.insert(past.end(), input.begin(), input.end());
            const Tensor<float> states = model.hidden(one_row(input), {}, &caches);
            const Tensor<float> logits = model.logits(slice(states, 1, states.size(1) - 1));
            CHECK(relative_error(logits, uncached_logits(model, past)) <= 1e-6);
            CHECK(caches.front().length() == static_cast<std::int64_t>(past.size()));
            input.clear();
            for (std::size_t i = 0; i < step; ++i) {
                input.push_back(static_cast<std::int32_t>((past.size() * 31 + i * 17) % 96));
            }
        }
    }
}

TEST_CASE("rows of a batch share the caches, and caches can forget") {
    const NoGrad no_grad;
    const Gpt2<float> model = load_gpt2<float>(fixture("gpt2_tied"));
    auto caches = model.make_caches(2, 8);
    model.hidden(Tensor<std::int32_t>::from(Ids{1, 2, 3, 4, 5, 6}, {2, 3}), {}, &caches);
    model.hidden(Tensor<std::int32_t>::from(Ids{90, 91}, {2, 1}), {}, &caches);
    for (auto& cache : caches) {
        cache.truncate(3);
    }
    const Tensor<float> states = model.hidden(Tensor<std::int32_t>::from(Ids{7, 8, 9, 10}, {2, 2}), {}, &caches);
    const Tensor<float> logits = model.logits(slice(states, 1, 1));
    CHECK(relative_error(slice(logits, 0, 0, 1), uncached_logits(model, {1, 2, 3, 7, 8})) <= 1e-6);
    CHECK(relative_error(slice(logits, 0, 1, 2), uncached_logits(model, {4, 5, 6, 9, 10})) <= 1e-6);

    const auto five = [&] { model.hidden(Tensor<std::int32_t>::zeros({2, 4}), {}, &caches); };
    const std::string message = message_of<ShapeError>(five); // 5 + 4 > 8
    CHECK(message.find("[2, 8, 4, 8]") != std::string::npos);
    CHECK_THROWS_AS(model.hidden(Tensor<std::int32_t>::zeros({1, 1}), {}, &caches), ShapeError);
}

TEST_CASE("greedy generation chooses what the logits without a cache choose") {
    for (const std::string& name : fixtures_with("gpt2_", "reference.safetensors")) {
        CAPTURE(name);
        const Gpt2<float> model = load_gpt2<float>(fixture(name));
        const Result result = run(model, prompt, 12, greedy());
        CHECK(result.reason == StopReason::max_new_tokens);
        REQUIRE(result.ids.size() == 12);
        const NoGrad no_grad;
        Ids past = prompt;
        for (const std::int32_t id : result.ids) {
            const std::vector<float> logits = uncached_logits(model, past).to_vector();
            CHECK(id == std::max_element(logits.begin(), logits.end()) - logits.begin());
            past.push_back(id);
        }
    }
}

TEST_CASE("the same seed generates the same tokens") {
    const Gpt2<float> model = load_gpt2<float>(fixture("gpt2_tied"));
    SamplerOptions options;
    options.temperature = 2;
    options.repetition_penalty = 1.2;
    options.seed = 11;
    const Result first = run(model, prompt, 20, options);
    CHECK(run(model, prompt, 20, options).ids == first.ids);
    options.seed = 12;
    CHECK(run(model, prompt, 20, options).ids != first.ids);
}

TEST_CASE("how generation ends") {
    const Gpt2<float> model = load_gpt2<float>(fixture("gpt2_tied")); // 32 positions
    const Result twelve = run(model, prompt, 12, greedy());

    const std::int32_t eos = twelve.ids[7];
    const auto first = std::find(twelve.ids.begin(), twelve.ids.end(), eos);
    const Result stopped = run(model, prompt, 12, greedy(), eos);
    CHECK(stopped.reason == StopReason::eos);
    CHECK(stopped.ids == Ids(twelve.ids.begin(), first));

    const Result called = run(model, prompt, 12, greedy(), {}, 4);
    CHECK(called.reason == StopReason::callback);
    CHECK(called.ids == Ids(twelve.ids.begin(), twelve.ids.begin() + 4));

    // The last position still predicts a token: 5 of the prompt, 27 more positions, and one token that needs none.
    const Result full = run(model, prompt, std::numeric_limits<std::int64_t>::max(), greedy());
    CHECK(full.reason == StopReason::n_positions);
    CHECK(full.ids.size() == 28);
    CHECK(run(model, prompt, 28, greedy()).reason == StopReason::max_new_tokens);
    CHECK(run(model, Ids(32, 1), 5, greedy()).ids.size() == 1);

    for (const std::int64_t none : {0, -3}) {
        const Result nothing = run(model, prompt, none, greedy());
        CHECK(nothing.reason == StopReason::max_new_tokens);
        CHECK(nothing.ids.empty());
    }
}

TEST_CASE("prompts that cannot be continued are refused") {
    const Gpt2<float> model = load_gpt2<float>(fixture("gpt2_tied"));
    const auto message = [&](const Ids& ids) { return message_of<ShapeError>([&] { run(model, ids, 3, greedy()); }); };
    CHECK(message({}).find("0 tokens") != std::string::npos);
    CHECK(message(Ids(33, 1)).find("33 tokens") != std::string::npos);
    CHECK(message({1, 96}).find("id 96 at position 1") != std::string::npos);
}
