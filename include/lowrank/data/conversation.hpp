// The turns of a conversation record: messages (role, content) and from/value conversations.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/data/record_view.hpp"
#include "lowrank/text/chat_template.hpp"

namespace lowrank {

namespace detail {

struct RoleName {
    std::string_view name;
    ChatRole role;
};

/// The names of roles in messages (OpenAI's) and in from/value conversations (ShareGPT's).
inline constexpr RoleName role_names[] = {{"system", ChatRole::system},       {"developer", ChatRole::system},
                                          {"user", ChatRole::user},           {"human", ChatRole::user},
                                          {"assistant", ChatRole::assistant}, {"gpt", ChatRole::assistant},
                                          {"model", ChatRole::assistant}};

/// The string under `key` of turn `number` of the column of `role`.
inline const std::string& turn_string(const RecordView& record, std::string_view role, std::size_t number,
                                      const json& turn, const char* key) {
    const auto found = turn.find(key);
    if (found == turn.end() || !found->is_string()) {
        record.refuse(role,
                      found == turn.end()
                          ? concat("turn ", number, " without the key '", key, "' (it has ", describe_keys(turn), ")")
                          : concat(JsonReader::describe(*found), " as '", key, "' of turn ", number),
                      concat("a string under '", key, "'"));
    }
    return found->get_ref<const std::string&>();
}

} // namespace detail

/// The turns in the column of `role`: a list of objects with role and content, or with from and value. A turn of the
/// assistant with "weight": 0 is not supervised. Throws FileError naming the turn (from 1) for anything else, an
/// unknown role, an empty list, and a conversation in which the assistant says nothing.
inline std::vector<ChatTurn> read_turns(const RecordView& record, std::string_view role) {
    const json& list = record.require(role);
    if (!list.is_array() || list.empty()) {
        record.refuse(role, list.is_array() ? "an empty list" : JsonReader::describe(list), "a list of turns");
    }
    std::vector<ChatTurn> turns;
    bool answered = false;
    for (const json& turn : list) {
        const std::size_t number = turns.size() + 1;
        if (!turn.is_object()) {
            record.refuse(role, concat(JsonReader::describe(turn), " as turn ", number),
                          "an object with role and content, or with from and value");
        }
        const bool from_value = turn.contains("from") && !turn.contains("role");
        const std::string& name = detail::turn_string(record, role, number, turn, from_value ? "from" : "role");
        const auto* known = std::find_if(std::begin(detail::role_names), std::end(detail::role_names),
                                         [&](const detail::RoleName& entry) { return entry.name == name; });
        if (known == std::end(detail::role_names)) {
            record.refuse(role, concat("the role ", in_quotes(name), " in turn ", number),
                          "system, user (human) or assistant (gpt)");
        }
        const std::string& text = detail::turn_string(record, role, number, turn, from_value ? "value" : "content");
        const auto weight = turn.find("weight");
        const bool weighted = weight != turn.end() && !weight->is_null();
        if (weighted && *weight != 0 && *weight != 1) {
            record.refuse(role, concat("the weight ", JsonReader::describe(*weight), " of turn ", number), "0 or 1");
        }
        turns.push_back({known->role, text, !weighted || *weight == 1});
        answered = answered || known->role == ChatRole::assistant;
    }
    if (!answered) {
        record.refuse(role, concat(turns.size(), " turns, none of the assistant"), "one at least to learn from");
    }
    return turns;
}

} // namespace lowrank
