// What tests of whole models share: fixtures' files and tensors, and the errors between them.
#pragma once

#include <cstdint>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "lowrank/io/json.hpp"
#include "lowrank/io/tensor_file.hpp"
#include "reference.hpp"

namespace lowrank::testing {

inline std::filesystem::path fixture(const std::string& name) {
    return std::filesystem::path(LOWRANK_TEST_FIXTURES) / name;
}

/// The names of the fixture directories that begin with `prefix` and hold `file`. Fails the test when there are none.
inline std::vector<std::string> fixtures_with(const std::string& prefix, const std::string& file) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(LOWRANK_TEST_FIXTURES)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with(prefix) && std::filesystem::exists(entry.path() / file)) {
            names.push_back(name);
        }
    }
    std::sort(names.begin(), names.end());
    REQUIRE_FALSE(names.empty());
    return names;
}

/// A tensor of a file, in its own shape.
template <class T = float>
Tensor<T> tensor_of(const SafetensorsFile& file, const std::string& key) {
    const TensorEntry& entry = file.at(key);
    return load_values<T, Cpu>(entry, Shape(std::span(entry.shape)));
}

/// Ids or labels, which files hold as I64.
inline Tensor<std::int32_t> ids_of(const SafetensorsFile& file, const std::string& key) {
    const TensorEntry& entry = file.at(key);
    REQUIRE(entry.dtype == DType::i64);
    std::vector<std::int32_t> ids;
    for (std::size_t at = 0; at < entry.bytes.size(); at += sizeof(std::int64_t)) {
        std::int64_t value = 0;
        std::memcpy(&value, entry.bytes.data() + at, sizeof value);
        ids.push_back(static_cast<std::int32_t>(value));
    }
    return Tensor<std::int32_t>::from(ids, Shape(std::span(entry.shape)));
}

/// How many labels [batch, length] the loss counts: those that a token precedes.
inline std::int64_t supervised_count(const Tensor<std::int32_t>& labels) {
    const std::vector<std::int32_t> values = labels.to_vector();
    std::int64_t count = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const bool first = static_cast<std::int64_t>(i) % labels.size(1) == 0;
        count += !first && values[i] != ignored_label;
    }
    return count;
}

} // namespace lowrank::testing
