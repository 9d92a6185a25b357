// What the examples share: option groups, errors as exit codes, models with their adapters.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <fmt/ranges.h>

#include "lowrank/adapters/peft_files.hpp"
#include "lowrank/models/gpt2_checkpoint.hpp"

namespace examples {

using Model = lowrank::Gpt2<float, lowrank::Cpu>;

/// Which model a program works with; the options that all programs share.
struct ModelOptions {
    std::string model, adapter;
    int threads = 0;
};

inline void add_model_options(CLI::App& app, ModelOptions& options, bool with_adapter) {
    app.add_option("--model", options.model,
                   "directory of a GPT-2 as Transformers saves it: config.json, model.safetensors, tokenizer files")
        ->required();
    if (with_adapter) {
        app.add_option("--adapter", options.adapter, "directory of a LoRA adapter as PEFT saves it");
    }
    app.add_option("--threads", options.threads, "threads; 0 takes all CPUs")->check(CLI::Range(0, 1024));
}

inline void notice_unknown_keys(const std::string& file, const std::vector<std::string>& keys) {
    if (!keys.empty()) {
        fmt::print(stderr, "{}: keys that are not known are ignored: {}\n", file, fmt::join(keys, ", "));
    }
}

/// The model of the options, with its adapter if one is given.
inline Model load_model(const ModelOptions& options) {
    if (options.threads > 0) {
        lowrank::set_num_threads(options.threads);
    }
    Model model = lowrank::load_gpt2<float>(options.model);
    notice_unknown_keys(options.model + "/config.json", model.config.unknown_keys);
    if (!options.adapter.empty()) {
        const lowrank::LoraConfig config = lowrank::load_adapter<float, lowrank::Cpu>(model, options.adapter);
        notice_unknown_keys(options.adapter + "/adapter_config.json", config.unknown_keys);
    }
    return model;
}

/// Copies the files that a tokenizer is made of, as far as they exist, so that the new directory stands by itself.
inline void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to) {
    for (const char* name : {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
                             "special_tokens_map.json", "added_tokens.json", "char_vocab.json"}) {
        if (std::filesystem::exists(from / name)) {
            lowrank::write_atomically(to / name, lowrank::read_text(from / name));
        }
    }
}

/// Refuses an output directory that exists and is not empty: it would be replaced as a whole.
inline void check_output(const std::string& output, bool overwrite) {
    if (!overwrite && std::filesystem::exists(output) &&
        (!std::filesystem::is_directory(output) || !std::filesystem::is_empty(output))) {
        throw lowrank::OptionError("--output: '" + output +
                                   "' exists and is not empty; --overwrite-output-dir replaces it as a whole");
    }
}

/// Parses the command line and runs `body`: 0 when all went well, 1 for an error, 2 for a wrong command line.
inline int run(CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
    app.option_defaults()->always_capture_default();
    app.set_config("--config", "", "file with options, one `name=value` a line")->check(CLI::ExistingFile);
    app.allow_config_extras(CLI::config_extras_mode::error);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    try {
        return body();
    } catch (const std::bad_alloc&) {
        fmt::print(stderr, "error: out of memory\n");
    } catch (const std::exception& error) {
        fmt::print(stderr, "error: {}\n", error.what());
    }
    return 1;
}

} // namespace examples
