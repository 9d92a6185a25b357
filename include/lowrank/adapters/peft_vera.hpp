// adapter_config.json of VeRA: PEFT's VeraConfig read, checked, and written as PEFT writes it.
#pragma once

#include <cstdint>
#include <limits>

#include "lowrank/adapters/peft_targets.hpp"
#include "lowrank/adapters/vera_config.hpp"

namespace lowrank {

/// Reads VeRA's keys. Absent ones have PEFT's defaults. Throws FileError, naming file and key, for wrong types and
/// ranges, and for a file without the projections.
inline void read_config(PeftConfigFile& file, VeraConfig& config) {
    JsonReader& reader = file.reader;
    config.r = reader.get_integer_or("r", config.r, 1, detail::most_rank);
    config.vera_dropout = reader.get_number_or("vera_dropout", 0.0, 0.0, 0.999);
    config.d_initial = reader.get_number_or("d_initial", config.d_initial);
    config.projection_prng_key =
        reader.get_integer_or("projection_prng_key", 0, 0, std::numeric_limits<std::int64_t>::max());
    config.init_weights = reader.get_bool_or("init_weights", true);
    config.bias = detail::read_bias(reader, "vera_only");
    if (!reader.get_bool_or("save_projection", true)) {
        reader.fail("save_projection", "false",
                    "true: the file holds no projections (base_model.vera_A and vera_B), and only PyTorch's generator "
                    "makes them again from projection_prng_key; save the adapter in PEFT with save_projection=True");
    }
    detail::read_layers(reader, config);
}

/// VeRA's keys as PEFT writes them.
inline json config_document(const VeraConfig& config) {
    json document = {{"r", config.r},
                     {"vera_dropout", config.vera_dropout},
                     {"d_initial", config.d_initial},
                     {"projection_prng_key", config.projection_prng_key},
                     {"init_weights", config.init_weights},
                     {"bias", detail::bias_name(config.bias, "vera_only")},
                     {"save_projection", true}};
    detail::write_layers(document, config);
    return document;
}

} // namespace lowrank
