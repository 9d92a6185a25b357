#include "reference.hpp"

#include <cstring>

#include "lowrank/io/json.hpp"
#include "lowrank/io/safetensors.hpp"

namespace lowrank::testing {

namespace {

struct Reference {
    SafetensorsFile file = SafetensorsFile::open(LOWRANK_TEST_FIXTURES "/ops_reference.safetensors");
    json cases = parse_json(file.metadata().at("cases"), file.path());

    static const Reference& instance() {
        static const Reference reference;
        return reference;
    }
};

const json& setting_of(const std::string& name, const std::string& setting) {
    return Reference::instance().cases.at(name).at(setting);
}

template <class Stored>
std::vector<double> values_of(const TensorEntry& entry) {
    std::vector<double> values;
    for (std::size_t at = 0; at < entry.bytes.size(); at += sizeof(Stored)) {
        Stored value;
        std::memcpy(&value, entry.bytes.data() + at, sizeof value);
        values.push_back(static_cast<double>(value));
    }
    return values;
}

} // namespace

bool ReferenceCase::has(const std::string& tensor) const {
    return Reference::instance().file.tensors().count(name_ + "." + tensor) != 0;
}

double ReferenceCase::number(const std::string& setting) const {
    const json& value = setting_of(name_, setting);
    return value.is_boolean() ? value.get<bool>() : value.get<double>();
}

std::string ReferenceCase::text(const std::string& setting) const {
    return setting_of(name_, setting).get<std::string>();
}

std::vector<std::int64_t> ReferenceCase::list(const std::string& setting) const {
    return setting_of(name_, setting).get<std::vector<std::int64_t>>();
}

ReferenceCase::Values ReferenceCase::read(const std::string& tensor) const {
    const TensorEntry& entry = Reference::instance().file.at(name_ + "." + tensor);
    REQUIRE((entry.dtype == DType::f32 || entry.dtype == DType::i64));
    return {entry.dtype == DType::f32 ? values_of<float>(entry) : values_of<std::int64_t>(entry),
            Shape(std::span<const std::int64_t>(entry.shape))};
}

std::vector<ReferenceCase> reference_cases(const std::string& op) {
    std::vector<ReferenceCase> cases;
    const json& all = Reference::instance().cases;
    for (auto it = all.begin(); it != all.end(); ++it) {
        if (it.key().substr(0, op.size() + 1) == op + ".") {
            cases.emplace_back(it.key());
        }
    }
    REQUIRE_MESSAGE(!cases.empty(), op);
    return cases;
}

} // namespace lowrank::testing
