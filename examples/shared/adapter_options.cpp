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

/// Options that some methods have, and which.
struct MethodOption {
    std::string name;
    std::vector<std::string> methods;
};
const std::vector<MethodOption>& method_options() {
    static const std::vector<std::string> lora = {"lora", "dora", "lora-fa"},
                                          factors = {"lora", "dora", "lora-fa", "adalora"},
                                          all = {"lora", "dora", "lora-fa", "adalora", "vera", "ia3"};
    static const std::vector<MethodOption> options = {
        {"--r", {"lora", "dora", "lora-fa", "vera"}},
        {"--lora-alpha", factors},
        {"--lora-dropout", factors},
        {"--use-rslora", lora},
        {"--lora-bias", lora},
        {"--init-lora-weights", factors},
        {"--bias", {"lora", "dora", "lora-fa", "adalora", "vera"}},
        {"--target-modules", all},
        {"--exclude-modules", {"lora", "dora", "lora-fa", "adalora", "ia3"}},
        {"--modules-to-save", all},
        {"--layers-to-transform", {"lora", "dora", "lora-fa", "adalora", "vera"}},
        {"--rank-pattern", lora},
        {"--alpha-pattern", lora},
        {"--vera-dropout", {"vera"}},
        {"--d-initial", {"vera"}},
        {"--projection-prng-key", {"vera"}},
        {"--feedforward-modules", {"ia3"}},
        {"--init-r", {"adalora"}},
        {"--target-r", {"adalora"}},
        {"--tinit", {"adalora"}},
        {"--tfinal", {"adalora"}},
        {"--delta-t", {"adalora"}},
        {"--beta1", {"adalora"}},
        {"--beta2", {"adalora"}},
        {"--orth-reg-weight", {"adalora"}},
    };
    return options;
}

lowrank::VeraConfig vera_config(const AdapterOptions& options, const lowrank::LoraConfig& lora) {
    lowrank::VeraConfig config = options.vera;
    static_cast<lowrank::AdapterTargets&>(config) = lora;
    config.r = lora.r;
    return config;
}

lowrank::Ia3Config ia3_config(const AdapterOptions& options, const lowrank::LoraConfig& lora) {
    lowrank::Ia3Config config;
    static_cast<lowrank::AdapterTargets&>(config) = lora;
    config.feedforward_modules = selection(options.feedforward_modules);
    return config;
}

lowrank::AdaLoraConfig adalora_config(const AdapterOptions& options, const lowrank::LoraConfig& lora) {
    lowrank::AdaLoraConfig config = options.adalora;
    static_cast<lowrank::AdapterTargets&>(config) = lora;
    config.lora_alpha = lora.lora_alpha;
    config.lora_dropout = lora.lora_dropout;
    if (options.init_lora_weights != "true" && options.init_lora_weights != "false") {
        throw lowrank::OptionError("--init-lora-weights: found " + options.init_lora_weights +
                                   ", expected true or false with --method adalora");
    }
    config.init_lora_weights = options.init_lora_weights == "true";
    return config;
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

lowrank::AdapterConfig adapter_config(const AdapterOptions& options, const std::string& base_name) {
    lowrank::LoraConfig config = options.lora;
    config.use_dora = options.method == "dora";
    config.freeze_a = options.method == "lora-fa";
    config.bias = options.bias == "all"         ? lowrank::BiasMode::all
                  : options.bias == "lora_only" ? lowrank::BiasMode::lora_only
                                                : lowrank::BiasMode::none;
    set_init_lora_weights(config, options.init_lora_weights);
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
    if (options.method == "vera") {
        return vera_config(options, config);
    }
    if (options.method == "ia3") {
        return ia3_config(options, config);
    }
    if (options.method == "adalora") {
        return adalora_config(options, config);
    }
    return config;
}

void add_adapter_options(CLI::App& app, AdapterOptions& o) {
    app.add_option("--method", o.method, "what to train")
        ->check(CLI::IsMember({"lora", "dora", "vera", "adalora", "ia3", "lora-fa", "full"}));
    app.add_option("--init-adapter", o.init_adapter, "continue from this adapter; its config decides");
    app.add_option("--r", o.lora.r, "rank; with --method vera 256 unless given")
        ->check(number<std::int64_t>(1, most_rank));
    app.add_option("--lora-alpha", o.lora.lora_alpha, "scale: alpha/r, or alpha/sqrt(r) with --use-rslora")
        ->check(number(std::numeric_limits<double>::lowest()));
    app.add_option("--lora-dropout", o.lora.lora_dropout, "dropout before A")->check(number(0.0, 0.999));
    app.add_flag("--use-rslora", o.lora.use_rslora, "scale by alpha/sqrt(r)");
    app.add_flag("--lora-bias", o.lora.lora_bias, "B has a bias");
    app.add_option("--init-lora-weights", o.init_lora_weights,
                   "true: B = 0; false: random B; gaussian, orthogonal; pissa, pissa_niter_[number] or olora: the "
                   "largest part of the base; loftq: what --quantize nf4 lost; eva: from the data")
        ->check(CLI::Validator(
            [](const std::string& name) {
                lowrank::LoraConfig config;
                try {
                    set_init_lora_weights(config, name);
                } catch (const lowrank::OptionError& error) {
                    return std::string(error.what());
                }
                return std::string();
            },
            "NAME"));
    app.add_option("--bias", o.bias, "biases to train; lora_only: those of the adapted layers")
        ->check(CLI::IsMember({"none", "all", "lora_only"}));
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
    app.add_option("--vera-dropout", o.vera.vera_dropout, "VeRA: dropout before A")->check(number(0.0, 0.999));
    app.add_option("--d-initial", o.vera.d_initial, "VeRA: where the vector d starts")
        ->check(number(std::numeric_limits<double>::lowest()));
    app.add_option("--projection-prng-key", o.vera.projection_prng_key, "VeRA: seed of the shared matrices")
        ->check(number<std::int64_t>(0));
    app.add_option("--feedforward-modules", o.feedforward_modules,
                   "IA3: those of the targets whose input is scaled, and not their output")
        ->delimiter(',');
    app.add_option("--init-r", o.adalora.init_r, "AdaLoRA: rank of every layer at the start")
        ->check(number<std::int64_t>(1, most_rank));
    app.add_option("--target-r", o.adalora.target_r, "AdaLoRA: mean rank of the layers at the end")
        ->check(number<std::int64_t>(1, most_rank));
    app.add_option("--tinit", o.adalora.tinit, "AdaLoRA: steps before ranks are cut")->check(number<std::int64_t>(0));
    app.add_option("--tfinal", o.adalora.tfinal, "AdaLoRA: last steps, with the ranks that are left")
        ->check(number<std::int64_t>(0));
    app.add_option("--delta-t", o.adalora.delta_t, "AdaLoRA: steps between two cuts")->check(number<std::int64_t>(1));
    app.add_option("--beta1", o.adalora.beta1, "AdaLoRA: smoothing of importance");
    app.add_option("--beta2", o.adalora.beta2, "AdaLoRA: smoothing of its uncertainty");
    app.add_option("--orth-reg-weight", o.adalora.orth_reg_weight, "AdaLoRA: weight of the orthogonal penalty");
    app.final_callback([&app, &o] {
        if (o.method == "vera" && app.count("--r") == 0) {
            o.lora.r = o.vera.r;
            app.get_option("--r")->default_str(std::to_string(o.lora.r));
        }
    });
}

std::vector<std::string> options_without_effect(const AdapterOptions& options) {
    const bool continues = !options.init_adapter.empty();
    std::vector<std::string> names;
    for (const MethodOption& option : method_options()) {
        const bool has = std::count(option.methods.begin(), option.methods.end(), options.method) > 0;
        if (continues ? option.name != "--lora-dropout" : !has) {
            names.push_back(option.name);
        }
    }
    if (continues && options.method != "lora-fa") { // a file of LoRA does not say that A is frozen
        names.push_back("--method");
    }
    if (!continues && (options.trains_all_weights() || options.method == "ia3")) {
        names.push_back("--loraplus-lr-ratio");
    }
    return names;
}

void refuse_without_effect(const AdapterOptions& options, const CLI::App& app) {
    for (const std::string& name : options_without_effect(options)) {
        if (app.count(name) > 0) {
            const std::string why = options.init_adapter.empty() ? "has no meaning with --method " + options.method
                                                                 : "the adapter of --init-adapter decides this";
            throw lowrank::OptionError(name + ": " + why + "; leave the option out");
        }
    }
}

std::string base_model_name(const ModelOptions& options) {
    std::string name;
    lowrank::append_utf8_lossy(name, options.model, true);
    return name;
}

} // namespace examples
