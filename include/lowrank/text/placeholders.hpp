// The placeholders of templates: {name}, with {{ and }} for single braces.
#pragma once

#include <string_view>

#include "lowrank/core/error.hpp"

namespace lowrank {

/// Calls visit(placeholder, literal) for each piece of a template's text, in order; one of the two is empty. Throws
/// OptionError for a lone brace and an empty placeholder.
template <class Visit>
void scan_placeholders(std::string_view text, const Visit& visit) {
    std::size_t at = 0;
    while (at < text.size()) {
        const std::size_t brace = text.find_first_of("{}", at);
        visit({}, text.substr(at, brace == text.npos ? text.npos : brace - at));
        if (brace == text.npos) {
            return;
        }
        if (brace + 1 < text.size() && text[brace + 1] == text[brace]) {
            visit({}, text.substr(brace, 1));
            at = brace + 2;
            continue;
        }
        const std::size_t end = text[brace] == '{' ? text.find_first_of("{}", brace + 1) : text.npos;
        if (end == text.npos || text[end] == '{' || end == brace + 1) {
            throw OptionError(concat("template: found a lone '", text[brace], "' at byte ", brace,
                                     ", expected a placeholder such as {instruction} or {content}, {{ or }}"));
        }
        visit(text.substr(brace + 1, end - brace - 1), {});
        at = end + 1;
    }
}

} // namespace lowrank
