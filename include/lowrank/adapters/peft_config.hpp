// adapter_config.json of any method: read, checked, and written as PEFT writes it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <variant>

#include "lowrank/adapters/adapter_config.hpp"
#include "lowrank/adapters/peft_adalora.hpp"
#include "lowrank/adapters/peft_ia3.hpp"
#include "lowrank/adapters/peft_lora.hpp"
#include "lowrank/adapters/peft_vera.hpp"

namespace lowrank {

namespace detail {

/// Settings of the method that PEFT calls `type`, with its defaults; nothing for a type that is not known, whose name
/// the others' are added to `known`.
template <class... Configs>
std::optional<std::variant<Configs...>> config_of_type(const std::string& type, std::string& known,
                                                       const std::variant<Configs...>&) {
    std::optional<std::variant<Configs...>> found;
    const auto consider = [&](auto config) {
        known += (known.empty() ? "\"" : ", \"") + std::string(config.peft_type) + "\"";
        if (type == config.peft_type) {
            found = std::move(config);
        }
    };
    (consider(Configs()), ...);
    return found;
}

} // namespace detail

/// Reads and checks `<directory>/adapter_config.json`. Absent keys have PEFT's defaults. Throws FileError, naming file
/// and key, for wrong types and ranges, for a method that is not known, and for a setting that changes the mathematics
/// and is not supported.
inline AdapterConfig read_adapter_config(const std::filesystem::path& directory) {
    PeftConfigFile file(directory / "adapter_config.json");
    const std::string type = file.reader.get_string("peft_type");
    std::string known;
    std::optional<AdapterConfig> config = detail::config_of_type(type, known, AdapterConfig());
    if (!config) {
        file.reader.fail("peft_type", "\"" + type + "\"", known);
    }
    std::visit([&](auto& one) { read_config(file, one); }, *config);
    detail::read_targets(file.reader, targets(*config));
    targets(*config).unknown_keys = file.reader.unread_keys();
    try {
        validate(*config, file.path.string());
    } catch (const OptionError& error) {
        throw FileError(error.what());
    }
    return *config;
}

/// The text of adapter_config.json for an adapter over a base whose targeted matrices are stored [in, out]
/// (`fan_in_fan_out`) or not: PEFT's keys, sorted, indented by two.
inline json peft_config(const AdapterConfig& config, bool fan_in_fan_out) {
    return std::visit(
        [&](const auto& one) {
            json document = config_document(one);
            document["peft_type"] = one.peft_type;
            detail::write_targets(document, one, fan_in_fan_out);
            return document;
        },
        config);
}

} // namespace lowrank
