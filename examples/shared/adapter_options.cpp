#include "adapter_options.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include <fmt/core.h>

#include "lowrank/text/unicode.hpp"
#include "number.hpp"

namespace examples {

namespace {

constexpr std::int64_t most_rank = 1 << 20; // what adapter_config.json may hold

/// "name=value" entries of a pattern option.
template <class Value>
std::vector<std::pair<std::string, Value>>
parse_pattern(const std::string& option, const std::vector<std::string>& entries, Value low, Value high) {
    std::vector<std::pair<std::string, Value>> pattern;
    for (const std::string& entry : entries) {
        const std::size_t equals = entry.rfind('=');
        const auto value = read_number(entry.substr(std::min(equals, entry.size() - 1) + 1), low, high);
        if (equals == std::string::npos || equals == 0 || !value) {
            throw lowrank::OptionError(fmt::format("{}: found '{}', expected module=number, the number from {} to {}",
                                                   option, entry, low, high));
        }
        pattern.emplace_back(entry.substr(0, equals), *value);
    }
    return pattern;
}

} // namespace

std::optional<lowrank::ModuleSelection> selection(const std::vector<std::string>& names) {
    if (names.empty()) {
        return std::nullopt;
    }
    if (names.size() == 1 &&
        (names[0] == "all-linear" || names[0].find_first_of("*+?[](){}|^$\\") != std::string::npos)) {
        return lowrank::ModuleSelection(names[0]);
    }
    return lowrank::ModuleSelection(names);
}

lowrank::LoraConfig lora_config(const AdapterOptions& options, const std::string& base_name) {
    lowrank::LoraConfig config = options.lora;
    config.use_dora = options.method == "dora";
    config.bias = options.bias == "all"         ? lowrank::BiasMode::all
                  : options.bias == "lora_only" ? lowrank::BiasMode::lora_only
                                                : lowrank::BiasMode::none;
    config.init_lora_weights = options.init_lora_weights == "gaussian" ? lowrank::LoraInit::gaussian
                               : options.init_lora_weights == "false"  ? lowrank::LoraInit::random
                                                                       : lowrank::LoraInit::kaiming;
    config.target_modules = selection(options.target_modules);
    config.exclude_modules = selection(options.exclude_modules);
    config.modules_to_save = options.modules_to_save;
    if (!options.layers_to_transform.empty()) {
        config.layers_to_transform = options.layers_to_transform;
    }
    constexpr double any = std::numeric_limits<double>::max();
    config.rank_pattern = parse_pattern("--rank-pattern", options.rank_pattern, std::int64_t(1), most_rank);
    config.alpha_pattern = parse_pattern("--alpha-pattern", options.alpha_pattern, -any, any);
    config.base_model_name_or_path = base_name;
    return config;
}

void add_adapter_options(CLI::App& app, AdapterOptions& o) {
    app.add_option("--method", o.method, "what to train")->check(CLI::IsMember({"lora", "dora", "full"}));
    app.add_option("--init-adapter", o.init_adapter, "continue from this adapter; its config decides");
    app.add_option("--r", o.lora.r, "rank")->check(number<std::int64_t>(1, most_rank));
    app.add_option("--lora-alpha", o.lora.lora_alpha, "scale: alpha/r, or alpha/sqrt(r) with --use-rslora")
        ->check(number(std::numeric_limits<double>::lowest()));
    app.add_option("--lora-dropout", o.lora.lora_dropout, "dropout before A")->check(number(0.0, 0.999));
    app.add_flag("--use-rslora", o.lora.use_rslora, "scale by alpha/sqrt(r)");
    app.add_option("--init-lora-weights", o.init_lora_weights, "true: B = 0; false: random B")
        ->check(CLI::IsMember({"true", "gaussian", "false"}));
    app.add_option("--bias", o.bias, "biases to train")->check(CLI::IsMember({"none", "all", "lora_only"}));
    app.add_option("--target-modules", o.target_modules, "names, all-linear, or a pattern over the whole path")
        ->delimiter(',');
    app.add_option("--exclude-modules", o.exclude_modules, "modules to leave out")->delimiter(',');
    app.add_option("--modules-to-save", o.modules_to_save, "modules to train whole beside the adapters")
        ->delimiter(',');
    app.add_option("--layers-to-transform", o.layers_to_transform, "numbers of the layers to adapt")
        ->delimiter(',')
        ->check(number<std::int64_t>(0));
    app.add_option("--rank-pattern", o.rank_pattern, "other ranks: c_proj=4,h.0.attn.c_attn=16")->delimiter(',');
    app.add_option("--alpha-pattern", o.alpha_pattern, "other alphas, likewise")->delimiter(',');
}

std::vector<std::string> options_without_effect(const AdapterOptions& options) {
    std::vector<std::string> names;
    if (!options.init_adapter.empty() || options.trains_all_weights()) {
        names = {"--r",
                 "--lora-alpha",
                 "--use-rslora",
                 "--bias",
                 "--target-modules",
                 "--exclude-modules",
                 "--modules-to-save",
                 "--layers-to-transform",
                 "--rank-pattern",
                 "--alpha-pattern",
                 "--init-lora-weights"};
        names.push_back(options.init_adapter.empty() ? "--lora-dropout" : "--method");
    }
    if (options.init_adapter.empty() && options.trains_all_weights()) {
        names.push_back("--loraplus-lr-ratio");
    }
    return names;
}

void refuse_without_effect(const AdapterOptions& options, const CLI::App& app) {
    for (const std::string& name : options_without_effect(options)) {
        if (app.count(name) > 0) {
            throw lowrank::OptionError(name +
                                       (options.init_adapter.empty()
                                            ? ": has no meaning with --method full; leave the option out"
                                            : ": the adapter of --init-adapter decides this; leave the option out"));
        }
    }
}

std::string base_model_name(const ModelOptions& options) {
    std::string name;
    lowrank::append_utf8_lossy(name, options.model, true);
    return name;
}

} // namespace examples
