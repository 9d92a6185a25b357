// Which column of a record plays which role: `--columns instruction=question,output=answer`.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <string_view>

#include "lowrank/core/error.hpp"

namespace lowrank {

/// The roles that a column can play in some format.
inline constexpr std::array<std::string_view, 12> column_roles = {
    "instruction", "input",  "output",     "instances", "messages",  "conversations",
    "system",      "prompt", "completion", "text",      "input_ids", "labels"};

/// A renaming of columns. A role that is not renamed is read from the column of its own name.
class Columns {
  public:
    Columns() = default;

    /// Reads "role=column,role=column"; empty text renames nothing. Throws OptionError for an unknown role, a role
    /// named twice, or a piece that is not role=column.
    static Columns parse(std::string_view text) {
        Columns columns;
        for (std::size_t at = 0; !text.empty() && at <= text.size();) {
            const std::size_t comma = std::min(text.find(',', at), text.size());
            const std::string_view piece = text.substr(at, comma - at);
            const std::size_t equals = piece.find('=');
            if (equals == piece.npos || equals == 0 || equals + 1 == piece.size()) {
                throw OptionError(concat("columns: found '", piece, "', expected role=column"));
            }
            columns.set(std::string(piece.substr(0, equals)), std::string(piece.substr(equals + 1)));
            at = comma + 1;
        }
        return columns;
    }

    /// Reads `role` from the column `column`. Throws OptionError for an unknown role or one that is set already.
    void set(const std::string& role, std::string column) {
        if (std::find(column_roles.begin(), column_roles.end(), role) == column_roles.end()) {
            std::string known;
            for (const auto name : column_roles) {
                known += concat(known.empty() ? "" : ", ", name);
            }
            throw OptionError(concat("columns: found the role '", role, "', expected one of ", known));
        }
        if (!renamed_.emplace(role, std::move(column)).second) {
            throw OptionError(concat("columns: found the role '", role, "' twice, expected it once"));
        }
    }

    /// The column that plays `role`.
    std::string column(std::string_view role) const {
        const auto found = renamed_.find(role);
        return found == renamed_.end() ? std::string(role) : found->second;
    }

    bool is_renamed(std::string_view role) const { return renamed_.contains(role); }

    /// role → column, for the roles that are renamed.
    const std::map<std::string, std::string, std::less<>>& renamed() const { return renamed_; }

  private:
    std::map<std::string, std::string, std::less<>> renamed_;
};

} // namespace lowrank
