#include "config_file.hpp"

#include <algorithm>
#include <set>
#include <string_view>

#include "lowrank/io/json.hpp"
#include "lowrank/io/near_matches.hpp"

namespace examples {

namespace {

/// Numbers as they are, all else as a string of JSON (names of files need not be UTF-8).
std::string as_literal(const std::string& value) {
    using lowrank::json;
    return json::accept(value) && json::parse(value).is_number()
               ? value
               : json(value).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string trim(std::string_view text) {
    const std::size_t begin = text.find_first_not_of(" \t\r");
    return begin == text.npos ? "" : std::string(text.substr(begin, text.find_last_not_of(" \t\r") + 1 - begin));
}

/// The line up to a `#` or `;` that stands outside of quotes and begins the line or follows a space.
std::string_view without_comment(std::string_view line) {
    char quote = '\0', before = ' ';
    for (std::size_t i = 0; i < line.size(); before = line[i++]) {
        const char c = line[i];
        if (quote == '\0' && (c == '#' || c == ';') && (before == ' ' || before == '\t')) {
            return line.substr(0, i);
        }
        if (quote == '\0' && (c == '"' || c == '\'')) {
            quote = c;
        } else if (c == quote) {
            quote = '\0';
        } else if (c == '\\' && quote == '"') {
            ++i;
        }
    }
    return line;
}

/// "…" and […] are JSON, '…' is taken as it stands, and so is what has no quotes.
std::vector<std::string> values(const std::string& padded, const std::string& file, std::size_t line) {
    const std::string text = trim(padded);
    if (text.size() > 1 && text.front() == '\'' && text.back() == '\'') {
        return {text.substr(1, text.size() - 2)};
    }
    if (!text.starts_with('"') && !text.starts_with('[')) {
        return {text};
    }
    const lowrank::json document = lowrank::parse_json(padded, file, line);
    std::vector<std::string> found;
    for (const lowrank::json& value : document.is_array() ? document : lowrank::json::array({document})) {
        if (value.is_structured() || value.is_null()) {
            throw lowrank::FileError(lowrank::concat(file, ": line ", line, ": found ", value.type_name(),
                                                     " in a list, expected strings or numbers"));
        }
        found.push_back(value.is_string() ? value.get<std::string>() : value.dump());
    }
    return found;
}

} // namespace

std::string config_text(const NamedValues& values) {
    std::string text;
    for (const auto& [name, value] : values) {
        text += name + " = " + value + "\n";
    }
    return text;
}

std::vector<CLI::ConfigItem> ConfigFile::from_config(std::istream& in) const {
    const std::string file = app_.get_config_ptr()->as<std::string>();
    std::set<std::string> seen;
    std::vector<CLI::ConfigItem> items;
    std::string line;
    for (std::size_t number = 1; std::getline(in, line); ++number) {
        const std::string where = lowrank::concat(file, ": line ", number, ": ");
        std::string text(without_comment(line));
        if (trim(text).empty()) {
            continue;
        }
        const std::size_t equals = text.find('=');
        CLI::ConfigItem item;
        item.name = trim(std::string_view(text).substr(0, equals));
        if (equals == std::string::npos) {
            throw lowrank::OptionError(where + "found " + lowrank::in_quotes(item.name) + ", expected name = value");
        }
        const CLI::Option* option = app_.get_option_no_throw("--" + item.name);
        if (option == nullptr || !option->get_configurable()) {
            throw lowrank::OptionError(where + "unknown option " + lowrank::in_quotes(item.name) +
                                       lowrank::similar_names(item.name, names()));
        }
        if (!seen.insert(item.name).second) {
            throw lowrank::OptionError(where + "option " + lowrank::in_quotes(item.name) + " is given twice");
        }
        std::fill_n(text.begin(), equals + 1, ' '); // so that columns in messages are right
        item.inputs = values(text, file, number);
        if (item.inputs.empty() || (item.inputs[0].empty() && item.inputs.size() == 1)) {
            throw lowrank::OptionError(where + "found no value for " + lowrank::in_quotes(item.name));
        }
        items.push_back(std::move(item));
    }
    return items;
}

std::string ConfigFile::to_config(const CLI::App*, bool, bool, std::string) const {
    return config_text(in_effect({}));
}

NamedValues ConfigFile::in_effect(const std::vector<std::string>& left_out) const {
    NamedValues values;
    for (const CLI::Option* option : app_.get_options()) {
        const std::string name = option->get_name();
        const bool is_flag = option->get_expected_min() == 0;
        std::vector<std::string> found = option->results();
        if (found.empty() && !is_flag && !option->get_default_str().empty()) {
            found = {option->get_default_str()};
        }
        if (!option->get_configurable() || std::count(left_out.begin(), left_out.end(), name) > 0 ||
            (found.empty() && !is_flag)) {
            continue;
        }
        std::string value;
        if (is_flag) {
            value = found.empty() ? "false" : found.back();
        } else if (option->get_expected_max() == 1) {
            value = as_literal(found.back());
        } else {
            for (std::size_t i = 0; i < found.size(); ++i) {
                value += (i == 0 ? "[" : ", ") + as_literal(found[i]);
            }
            value += "]";
        }
        values.emplace_back(name.substr(2), value);
    }
    return values;
}

std::vector<std::string> ConfigFile::names() const {
    std::vector<std::string> names;
    for (const CLI::Option* option : app_.get_options()) {
        if (option->get_configurable()) {
            names.push_back(option->get_name().substr(2));
        }
    }
    return names;
}

} // namespace examples
