#include <cmath>
#include <doctest/doctest.h>

#include "lowrank/autograd/record.hpp"
#include "lowrank/io/json.hpp"
#include "lowrank/optim/loraplus.hpp"

using namespace lowrank;

TEST_CASE("learning rates and weight decay are those of PEFT's create_loraplus_optimizer") {
    const json reference = read_json(LOWRANK_TEST_FIXTURES "/optim_loraplus.json");
    REQUIRE(reference.size() > 15);
    std::vector<std::string> names;
    std::vector<Tensor<float>> parameters;
    for (auto it = reference.begin(); it != reference.end(); ++it) {
        names.push_back(it.key());
        parameters.push_back(leaf(Tensor<float>::zeros(Shape(it->at("shape").get<std::vector<std::int64_t>>()))));
    }
    std::size_t found = 0;
    for (const ParameterGroup<float>& group : loraplus_groups(names, parameters, 1e-3, 16)) {
        REQUIRE(group.names.size() == group.parameters.size());
        for (std::size_t i = 0; i < group.names.size(); ++i, ++found) {
            CAPTURE(group.names[i]);
            const json& expected = reference.at(group.names[i]);
            const double learning_rate = expected.at("learning_rate").get<double>();
            CHECK(std::abs(1e-3 * group.learning_rate_scale / learning_rate - 1) < 1e-15);
            CHECK(group.weight_decay.value_or(0.1) == expected.at("weight_decay").get<double>());
            CHECK(Shape(expected.at("shape").get<std::vector<std::int64_t>>()) == group.parameters[i].shape());
        }
    }
    CHECK(found == reference.size());
    CHECK_THROWS_AS(loraplus_groups({"a"}, parameters, 1e-3, 16), OptionError);
    CHECK_THROWS_AS(loraplus_groups(names, parameters, 0, 16), OptionError);
    CHECK_THROWS_AS(loraplus_groups(names, parameters, 1e-3, 0.5), OptionError);
}
