#include <cmath>
#include <cstring>
#include <doctest/doctest.h>
#include <map>
#include <type_traits>

#include "lowrank/autograd/record.hpp"
#include "lowrank/io/safetensors.hpp"
#include "lowrank/optim/adamw.hpp"
#include "lowrank/optim/clip.hpp"
#include "lowrank/optim/schedule.hpp"

using namespace lowrank;

namespace {

const SafetensorsFile& fixture() {
    static const SafetensorsFile file = SafetensorsFile::open(LOWRANK_TEST_FIXTURES "/optim_adamw.safetensors");
    return file;
}

template <class T>
std::vector<T> stored(const std::string& key) {
    const TensorEntry& entry = fixture().at(key);
    REQUIRE(entry.bytes.size() % sizeof(T) == 0);
    std::vector<T> out(entry.bytes.size() / sizeof(T));
    std::memcpy(out.data(), entry.bytes.data(), entry.bytes.size());
    return out;
}

template <class Reference, class A>
double relative_error(const Tensor<A>& x, const std::string& key) {
    const std::vector<A> ours = x.to_vector();
    const std::vector<Reference> reference = stored<Reference>(key);
    REQUIRE(ours.size() == reference.size());
    double difference = 0, largest = 0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
        difference = std::max(difference, static_cast<double>(std::abs(Reference(ours[i]) - reference[i])));
        largest = std::max(largest, static_cast<double>(std::abs(reference[i])));
    }
    return difference / largest;
}

const std::map<std::string, Shape> shapes{{"a", {3, 5}}, {"b", {7, 4}}, {"bias", {33}}};

/// The values of fp32 numbers in the fixture as A.
template <class A>
Tensor<A> values(const std::string& key, const Shape& shape, std::int64_t row = 0) {
    const std::vector<float> all = stored<float>(key);
    const auto begin = all.begin() + row * numel(shape);
    return Tensor<A>::from(std::vector<A>(begin, begin + numel(shape)), shape);
}

struct Case {
    std::string name;
    AdamWOptions options;
    bool groups = false, skip = false;
    double max_norm = 0;
    Schedule schedule{};
};

/// The cases of tests/scripts/optim_fixtures.py.
const Case cases[] = {
    {"default", {.learning_rate = 1e-3}},
    {"no_decay", {.learning_rate = 1e-2, .weight_decay = 0}},
    {"betas", {.learning_rate = 5e-3, .beta1 = 0.3, .beta2 = 0.95, .epsilon = 1e-4, .weight_decay = 0.1}},
    {"no_momentum", {.learning_rate = 5e-3, .beta1 = 0, .beta2 = 0.9, .weight_decay = 0.1}},
    {"skips", {.learning_rate = 1e-2}, false, true},
    {"groups", {.learning_rate = 1e-3, .weight_decay = 0.05}, true},
    {"clip", {.learning_rate = 1e-2}, false, false, 1.0},
    {"linear", {.learning_rate = 1e-2, .weight_decay = 0.1}, false, false, 1.0, {ScheduleKind::linear, 5, 20}},
    {"cosine", {.learning_rate = 1e-2, .weight_decay = 0.1}, true, true, 0, {ScheduleKind::cosine, 3, 20}},
};

template <class A>
AdamW<A> make_optimizer(const Case& c, std::map<std::string, Tensor<A>>& parameters) {
    for (const auto& [name, shape] : shapes) {
        parameters[name] = leaf(values<A>("start." + name, shape));
    }
    const auto &a = parameters["a"], &b = parameters["b"], &bias = parameters["bias"];
    using Group = ParameterGroup<A>;
    std::vector<Group> groups{Group({a, bias}, {"a", "bias"}), Group({b}, {"b"})};
    if (c.groups) {
        groups[1].learning_rate_scale = 16;
        groups[1].weight_decay = 0.0;
    }
    return AdamW<A>(groups, c.options);
}

template <class A>
Gradients gradients_of(const Case& c, const std::map<std::string, Tensor<A>>& parameters, int step) {
    Gradients gradients;
    for (const auto& [name, parameter] : parameters) {
        const bool absent = c.skip && ((name == "b" && (step == 0 || step == 11)) || (name == "bias" && step == 4));
        if (!absent) {
            gradients.add(parameter.node(), values<A>("gradient." + name, parameter.shape(), step));
        }
    }
    return gradients;
}

} // namespace

TEST_CASE_TEMPLATE("twenty steps equal torch.optim.AdamW's, with clipping, schedules and groups", A, float, double) {
    const double tolerance = std::is_same_v<A, float> ? 1.2e-6 : 1e-14;
    const std::string type = std::is_same_v<A, float> ? "F32" : "F64";
    for (const Case& c : cases) {
        const std::string prefix = c.name + "." + type + ".";
        CAPTURE(prefix);
        std::map<std::string, Tensor<A>> parameters;
        AdamW<A> optimizer = make_optimizer(c, parameters);
        for (int step = 0; step < 20; ++step) {
            const Gradients gradients = gradients_of(c, parameters, step);
            double clip = 1;
            if (c.max_norm > 0) {
                const GradientNorm norm = gradient_norm(optimizer.parameters(), gradients);
                CHECK_FALSE(norm.first_nonfinite.has_value());
                CHECK(std::abs(norm.value / stored<double>(prefix + "norms")[std::size_t(step)] - 1) < tolerance);
                clip = norm.clip_factor(c.max_norm);
                CHECK((clip < 1) == (norm.value > 1));
            }
            optimizer.step(gradients, c.schedule.factor(step), clip);
            if (step == 0 || step == 1 || step == 4 || step == 9 || step == 19) {
                for (const auto& [name, parameter] : parameters) {
                    const std::string key = name + "." + std::to_string(step);
                    CAPTURE(key);
                    CHECK(relative_error<A>(parameter, prefix + key) < tolerance);
                    if constexpr (std::is_same_v<A,
                                                 float>) { // closer to fp64 than torch's own fp32, which reaches 8e-7
                        CHECK(relative_error<double>(parameter, c.name + ".F64." + key) < 4e-7);
                    }
                }
            }
        }
        for (const AdamWState<A, Cpu>& state : optimizer.state()) {
            CHECK(state.steps == (!c.skip ? 20 : state.name == "b" ? 18 : state.name == "bias" ? 19 : 20));
            CHECK(relative_error<A>(state.exp_avg, prefix + state.name + ".exp_avg") < 2 * tolerance);
            CHECK(relative_error<A>(state.exp_avg_sq, prefix + state.name + ".exp_avg_sq") < 2 * tolerance);
        }
    }
}

TEST_CASE("a run that is continued from a saved state has the same bits") {
    const Case& c = cases[8];
    std::map<std::string, Tensor<float>> whole, first, second;
    AdamW<float> uninterrupted = make_optimizer(c, whole), before = make_optimizer(c, first),
                 after = make_optimizer(c, second);
    for (int step = 0; step < 20; ++step) {
        uninterrupted.step(gradients_of(c, whole, step), c.schedule.factor(step));
        if (step < 9) {
            before.step(gradients_of(c, first, step), c.schedule.factor(step));
        }
    }
    std::vector<AdamWState<float, Cpu>> state = before.state();
    std::swap(state[0], state[2]); // names decide, not the order
    after.load_state(state);
    for (auto& [name, parameter] : second) {
        std::memcpy(parameter.mutable_data(), first[name].data(), std::size_t(parameter.numel()) * sizeof(float));
    }
    for (int step = 9; step < 20; ++step) {
        after.step(gradients_of(c, second, step), c.schedule.factor(step));
    }
    for (const auto& [name, parameter] : whole) {
        CHECK(parameter.to_vector() == second[name].to_vector());
    }
}

TEST_CASE("the result does not depend on the number of threads") {
    const std::int64_t n = 5 * elementwise_grain + 77;
    std::vector<float> start(std::size_t(n), 0.0f), slope(start);
    for (std::size_t i = 0; i < start.size(); ++i) {
        start[i] = std::sin(static_cast<float>(i));
        slope[i] = std::cos(3 * static_cast<float>(i)) * 1e-2f;
    }
    std::vector<std::vector<float>> results;
    std::vector<double> norms;
    const int threads = num_threads();
    for (int count : {1, 2, 3}) {
        set_num_threads(count);
        const Tensor<float> parameter = leaf(Tensor<float>::from(start, {n}));
        AdamW<float> optimizer({ParameterGroup<float>({parameter})});
        for (int step = 0; step < 3; ++step) {
            Gradients gradients;
            gradients.add(parameter.node(), Tensor<float>::from(slope, {n}));
            norms.push_back(gradient_norm(optimizer.parameters(), gradients).value);
            optimizer.step(gradients, 1, 0.5);
        }
        results.push_back(parameter.to_vector());
    }
    set_num_threads(threads);
    CHECK(results[0] != start);
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
    for (double norm : norms) {
        CHECK(norm == norms[0]);
    }
}

TEST_CASE("what does not fit is refused, and nothing is changed") {
    const Tensor<float> w = leaf(Tensor<float>::full({2, 3}, 1.0f)), x = leaf(Tensor<float>::full({4}, 1.0f));
    using Group = ParameterGroup<float>;
    CHECK_THROWS_AS(AdamW<float>({Group({w, w})}), OptionError);
    CHECK_THROWS_AS(AdamW<float>({Group({w, x}, {"w", "w"})}), OptionError);
    CHECK_THROWS_AS(AdamW<float>({Group({w}, {"w", "x"})}), OptionError);
    CHECK_THROWS_AS(AdamW<float>({Group({w.detach()})}), OptionError);
    CHECK_THROWS_AS(AdamW<float>({Group({leaf(w.as_strided({3, 2}, {1, 3}))})}), ShapeError);
    CHECK_THROWS_AS(AdamW<float>({Group({w}, {"w"}, 1, -1.0)}), OptionError);
    CHECK_THROWS_AS(AdamW<float>({Group({w})}, {.learning_rate = std::nan("")}), OptionError);
    CHECK_THROWS_WITH_AS(AdamW<float>({Group({w})}, {.beta2 = 1}),
                         "AdamW: beta2: found 1.000000, expected at least 0 and below 1", OptionError);

    AdamW<float> optimizer({Group({w, x}, {"w", "x"})});
    Gradients wrong;
    wrong.add(x.node(), Tensor<float>::full({4}, 1.0f));
    wrong.add(w.node(), Tensor<float>::full({3, 2}, 1.0f));
    CHECK_THROWS_WITH_AS(optimizer.step(wrong), "AdamW: parameter 'w' has shape [2, 3], its gradient [3, 2]",
                         ShapeError);
    CHECK(optimizer.state()[1].steps == 0);
    CHECK(x.to_vector() == std::vector<float>(4, 1.0f));

    std::vector<AdamWState<float, Cpu>> state;
    for (const AdamWState<float, Cpu>& own : optimizer.state()) {
        state.push_back({own.name, 5, Tensor<float>::full(own.exp_avg.shape(), 2.0f), own.exp_avg_sq});
    }
    auto missing = state, unknown = state, reshaped = state, negative = state;
    missing.pop_back();
    CHECK_THROWS_WITH_AS(optimizer.load_state(missing), "AdamW state: parameter 'x' is missing", OptionError);
    unknown.push_back({"y", 1, {}, {}});
    CHECK_THROWS_WITH_AS(optimizer.load_state(unknown), "AdamW state: 'y' is no parameter of this optimizer",
                         OptionError);
    reshaped[1].exp_avg = Tensor<float>::zeros({5});
    CHECK_THROWS_AS(optimizer.load_state(reshaped), ShapeError);
    negative[1].steps = -1;
    CHECK_THROWS_AS(optimizer.load_state(negative), OptionError);
    CHECK(optimizer.state()[0].steps == 0);
    CHECK(optimizer.state()[0].exp_avg.to_vector() == std::vector<float>(6, 0.0f));
    optimizer.load_state(state);
    CHECK(optimizer.state()[0].steps == 5);
    CHECK(optimizer.state()[0].exp_avg.to_vector() == std::vector<float>(6, 2.0f));
}

TEST_CASE("the step raises the parameter's version, so that a graph that saved it notices") {
    const Tensor<float> w = leaf(Tensor<float>::full({2}, 1.0f));
    AdamW<float> optimizer({ParameterGroup<float>({w})});
    const Saved<float, Cpu> saved = save(w);
    Gradients gradients;
    gradients.add(w.node(), Tensor<float>::full({2}, 1.0f));
    optimizer.step(gradients);
    CHECK_THROWS_AS(saved.get(), AutogradError);
}
