// Sequential: modules one after the other.
#pragma once

#include <string>
#include <tuple>
#include <utility>

#include "lowrank/nn/context.hpp"
#include "lowrank/nn/module.hpp"

namespace lowrank {

/// Each module's forward(x, context) gets what the one before gave. Fields are called "0", "1", … as torch's.
template <Module... Modules>
struct Sequential {
    std::tuple<Modules...> modules;

    Sequential() = default;
    explicit Sequential(Modules... modules) : modules(std::move(modules)...) {}

    template <class Visit>
    void fields(Visit&& visit) {
        std::apply(
            [&](auto&... module) {
                int index = 0;
                (visit(std::to_string(index++).c_str(), module), ...);
            },
            modules);
    }

    template <class X, class Context>
    X forward(const X& x, const Context& context) const {
        return std::apply(
            [&](const auto&... module) {
                X y = x;
                ((y = module.forward(y, context)), ...);
                return y;
            },
            modules);
    }
};

} // namespace lowrank
