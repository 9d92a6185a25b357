// adapter_config.json of IA3: PEFT's IA3Config read, checked, and written as PEFT writes it.
#pragma once

#include "lowrank/adapters/ia3_config.hpp"
#include "lowrank/adapters/peft_targets.hpp"

namespace lowrank {

/// Reads IA3's keys. Absent ones have PEFT's defaults. Throws FileError, naming file and key, for wrong types.
inline void read_config(PeftConfigFile& file, Ia3Config& config) {
    config.feedforward_modules = detail::read_selection(file.reader, "feedforward_modules");
    config.init_ia3_weights = file.reader.get_bool_or("init_ia3_weights", true);
}

/// IA3's keys as PEFT writes them.
inline json config_document(const Ia3Config& config) {
    return {{"exclude_modules", detail::selection_document(config.exclude_modules)},
            {"feedforward_modules", detail::selection_document(config.feedforward_modules)},
            {"init_ia3_weights", config.init_ia3_weights}};
}

} // namespace lowrank
