// Which layers an adapter adapts and with which rank, by PEFT's rules, and what is refused in its settings.

#include "io/temporary_directory.hpp"
#include "lowrank/adapters/peft_config.hpp"

#include <doctest/doctest.h>

using namespace lowrank;

namespace {

const std::vector<std::string> paths{"transformer.h.0.attn.c_attn",
                                     "transformer.h.1.mlp.c_proj",
                                     "transformer.h.1.attn.c_proj",
                                     "transformer.h.11.mlp.c_fc",
                                     "lm_head",
                                     "c_attn",
                                     "layers.3.experts.5.w1"};

using Names = std::vector<std::string>;
using Layers = std::vector<std::int64_t>;

ModuleSelection names(Names list) {
    return list;
}
ModuleSelection regex(std::string pattern) {
    return pattern;
}

/// The places in `paths` that a config adapts, as digits: "05".
std::string adapted(LoraConfig config) {
    if (!config.target_modules) {
        config.target_modules = names({"c_attn"}); // the model's default
    }
    std::string places;
    for (std::size_t i = 0; i < paths.size(); ++i) {
        if (targets_module(config, paths[i], paths[i] == "lm_head")) {
            places += std::to_string(i);
        }
    }
    return places;
}

LoraConfig targets(ModuleSelection modules, std::optional<ModuleSelection> exclude = {},
                   std::optional<Layers> layers = {}, Names pattern = {}) {
    LoraConfig config;
    config.target_modules = modules;
    config.exclude_modules = exclude;
    config.layers_to_transform = layers;
    config.layers_pattern = pattern;
    return config;
}

/// The message with which a config file is refused; "" where it is read.
std::string refusal(const std::string& text) {
    const TemporaryDirectory directory;
    write_file(directory / "adapter_config.json", text);
    const std::string message = message_of<FileError>([&] { read_adapter_config(directory.path()); });
    CHECK((message.empty() || message.find("adapter_config.json") != std::string::npos));
    return message;
}

LoraConfig read(const std::string& text) {
    const TemporaryDirectory directory;
    write_file(directory / "adapter_config.json", text);
    return std::get<LoraConfig>(read_adapter_config(directory.path()));
}

} // namespace

TEST_CASE("targets are those of PEFT's check_target_module_exists") {
    // The expected places are what PEFT 0.21.2 answers.
    CHECK(adapted(LoraConfig()) == "05"); // the model's default
    CHECK(adapted(targets(names({"c_attn"}))) == "05");
    CHECK(adapted(targets(names({"attn.c_proj"}))) == "2");
    CHECK(adapted(targets(names({"attn"}))) == "");
    CHECK(adapted(targets(names({"_attn"}))) == "");
    CHECK(adapted(targets(names({"proj"}))) == "");
    CHECK(adapted(targets(names({"h.1.mlp.c_proj", "transformer.h.0.attn.c_attn"}))) == "01");
    CHECK(adapted(targets(names({}))) == "");

    CHECK(adapted(targets(regex(R"(.*c_(attn|fc))"))) == "035");
    CHECK(adapted(targets(regex("c_attn"))) == "5"); // the whole path must match
    CHECK(adapted(targets(regex(R"(.*\.h\.1\..*)"))) == "12");
    CHECK(adapted(targets(regex(R"(transformer\.h\.\d\.mlp.*|lm_head)"))) == "14");
    CHECK(adapted(targets(regex("all-linear"))) == "012356"); // all but the head

    CHECK(adapted(targets(names({"c_proj", "c_attn"}), names({"mlp.c_proj"}))) == "025");
    CHECK(adapted(targets(names({"c_proj", "c_attn"}), regex(R"(.*\.h\.0\..*)"))) == "125");
    CHECK(adapted(targets(names({"c_proj"}), regex("c_proj"))) == "12");
    CHECK(adapted(targets(regex("all-linear"), names({"c_attn", "w1"}))) == "123");
    LoraConfig saving = targets(regex("all-linear"));
    saving.modules_to_save = {"attn", "mlp.c_fc", "expert"}; // what is trained whole gets no adapter
    CHECK(adapted(saving) == "156");

    const ModuleSelection some = names({"c_proj", "c_attn", "w1"});
    CHECK(adapted(targets(some, {}, Layers{1, 3})) == "125"); // an exact name is taken whatever its layer
    CHECK(adapted(targets(some, {}, Layers{5})) == "56");
    CHECK(adapted(targets(some, {}, Layers{})) == "01256");
    CHECK(adapted(targets(names({"c_proj", "transformer.h.0.attn.c_attn"}), {}, Layers{1})) == "012");
    CHECK(adapted(targets(names({"c_proj", "c_attn", "c_fc", "w1", "lm_head"}), {}, Layers{1, 11}, {"h"})) == "12345");
    CHECK(adapted(targets(names({"c_proj", "c_attn", "w1"}), {}, Layers{0, 3}, {"blocks", "layers"})) == "56");
    CHECK(adapted(targets(names({"w1"}), {}, Layers{5}, {"experts"})) == "6");
    CHECK(adapted(targets(names({"c_attn", "c_proj"}), {}, Layers{0}, {"(x|h)"})) == "05");
    CHECK(adapted(targets(names({"c_attn", "c_proj"}), {}, Layers{0}, {"block"})) == "5");
}

TEST_CASE("of the patterns that match the end of a path the first one decides") {
    const auto rank = [](std::vector<std::string> keys, std::size_t path) {
        LoraConfig config;
        std::int64_t value = 100;
        for (const std::string& key : keys) {
            config.rank_pattern.emplace_back(key, value++);
            config.alpha_pattern.emplace_back(key, static_cast<double>(value));
        }
        const std::int64_t found = rank_at(config, paths[path]);
        CHECK(alpha_at(config, paths[path]) == static_cast<double>(found == 8 ? 8 : found + 1));
        return found;
    };
    CHECK(rank({"c_attn"}, 0) == 100);
    CHECK(rank({"c_attn"}, 1) == 8);
    CHECK(rank({"attn.c_proj", "c_proj"}, 2) == 100);
    CHECK(rank({"attn.c_proj", "c_proj"}, 1) == 101);
    CHECK(rank({"c_proj", "attn.c_proj"}, 2) == 100);
    CHECK(rank({R"(h\.1\..*)"}, 1) == 100);
    CHECK(rank({"proj"}, 1) == 8); // whole names only
    CHECK(rank({"1.attn.c_proj"}, 2) == 100);
    CHECK(rank({"^transformer.h.0.attn.c_attn"}, 0) == 100);
    CHECK(rank({"a|c_fc"}, 3) == 100);
    CHECK(rank({".*attn"}, 5) == 100);
}

TEST_CASE("a config has PEFT's defaults, and its patterns keep the order of the file") {
    const LoraConfig config = read(R"({"peft_type": "LORA"})");
    CHECK(config.r == 8);
    CHECK(config.lora_alpha == 8);
    CHECK(config.lora_dropout == 0);
    CHECK_FALSE(config.target_modules);
    CHECK(config.bias == BiasMode::none);

    const LoraConfig ordered = read(R"({"peft_type": "LORA", "rank_pattern": {"z": 2, "a": 3}, "target_modules": "x.*",
        "layers_to_transform": null, "colour": "red", "init_lora_weights": "eva", "loftq_config": {}})");
    CHECK(ordered.rank_pattern == std::vector<std::pair<std::string, std::int64_t>>{{"z", 2}, {"a", 3}});
    CHECK(std::get<std::string>(*ordered.target_modules) == "x.*");
    CHECK(ordered.unknown_keys == Names{"colour"});
    CHECK(read(R"({"peft_type": "LORA", "layers_to_transform": 4})").layers_to_transform == Layers{4});
}

TEST_CASE("a config is refused with its file, the key, what was found and what was expected") {
    struct Case {
        const char *entries, *key, *says;
    };
    for (const Case& c : {
             Case{R"("r": 0)", "r", "an integer from 1"},
             Case{R"("r": "8")", "r", "\"8\" (string)"},
             Case{R"("lora_dropout": 1.0)", "lora_dropout", "1.0"},
             Case{R"("lora_dropout": -0.1)", "lora_dropout", "-0.1"},
             Case{R"("lora_alpha": "x")", "lora_alpha", "a number"},
             Case{R"("use_dora": 1)", "use_dora", "true or false"},
             Case{R"("bias": "some")", "bias", R"("none", "all" or "lora_only")"},
             Case{R"("init_lora_weights": "pissa")", "init_lora_weights", "pissa"},
             Case{R"("init_lora_weights": "pissa_niter_4")", "init_lora_weights", "pissa_niter_4"},
             Case{R"("init_lora_weights": "olora")", "init_lora_weights", "olora"},
             Case{R"("init_lora_weights": "loftq")", "init_lora_weights", "loftq"},
             Case{R"("rank_pattern": {"c_attn": 0})", "rank_pattern.c_attn", "0"},
             Case{R"("alpha_pattern": {"c_attn": null})", "alpha_pattern.c_attn", "null"},
             Case{R"("rank_pattern": {"c_(attn": 2})", "rank_pattern", "c_(attn"},
             Case{R"("alpha_pattern": {"*": 2})", "alpha_pattern", "*"},
             Case{R"("target_modules": "c_[attn")", "target_modules", "c_[attn"},
             Case{R"("target_modules": 3)", "target_modules", "3"},
             Case{R"("target_modules": ["a", 3])", "target_modules", "position 1"},
             Case{R"("exclude_modules": "+")", "exclude_modules", "+"},
             Case{R"("layers_to_transform": [1, -1])", "layers_to_transform", "-1"},
             Case{R"("layers_to_transform": [1], "target_modules": "all-linear")", "layers_to_transform", "pattern"},
             Case{R"("layers_pattern": ["h"])", "layers_pattern", "layers_to_transform"},
             Case{R"("layers_pattern": ["h("], "layers_to_transform": [0])", "layers_pattern", "h("},
             Case{R"("lora_bias": true, "use_dora": true)", "lora_bias", "use_dora"},
             Case{R"("lora_bias": true, "init_lora_weights": "gaussian")", "init_lora_weights", "lora_bias"},
             Case{R"("modules_to_save": "ln_f")", "modules_to_save", "a list of strings"},
             Case{R"("layer_replication": [[0, 1]])", "layer_replication", "not supported"},
             Case{R"("target_parameters": ["x"])", "target_parameters", "not supported"},
             Case{R"("trainable_token_indices": [1])", "trainable_token_indices", "not supported"},
             Case{R"("use_qalora": true)", "use_qalora", "not supported"},
             Case{R"("alora_invocation_tokens": [1, 2])", "alora_invocation_tokens", "not supported"},
         }) {
        CAPTURE(c.entries);
        const std::string message = refusal(std::string(R"({"peft_type": "LORA", )") + c.entries + "}");
        CAPTURE(message);
        CHECK(message.find("key '" + std::string(c.key) + "'") != std::string::npos);
        CHECK(message.find(c.says) != std::string::npos);
    }
    CHECK(refusal("{}").find("'peft_type'") != std::string::npos);
    CHECK(refusal(R"({"peft_type": "FOURIERFT"})").find("\"LORA\", \"VERA\", \"IA3\"") != std::string::npos);
    CHECK(refusal("[1]").find("a JSON object") != std::string::npos);
    CHECK(refusal("{").find("adapter_config.json") != std::string::npos);
    const TemporaryDirectory empty;
    CHECK(message_of<FileError>([&] { read_adapter_config(empty.path()); }).find("adapter_config.json") !=
          std::string::npos);
}

TEST_CASE("settings made in a program are checked as those of a file") {
    const auto refused = [](const std::function<void(LoraConfig&)>& change) {
        LoraConfig config;
        change(config);
        return message_of<OptionError>([&] { validate(config, "here"); });
    };
    CHECK(refused([](LoraConfig&) {}).empty());
    CHECK(refused([](LoraConfig& c) { c.r = 0; }) == "here: key 'r': found 0, expected 1 or more");
    CHECK(refused([](LoraConfig& c) { c.lora_dropout = 1; }).find("lora_dropout") != std::string::npos);
    CHECK(refused([](LoraConfig& c) { c.lora_dropout = std::nan(""); }).find("lora_dropout") != std::string::npos);
    CHECK(refused([](LoraConfig& c) { c.rank_pattern = {{"c", -1}}; }).find("rank_pattern.c") != std::string::npos);
    CHECK(refused([](LoraConfig& c) { c.target_modules = regex("("); }).find("'('") != std::string::npos);
}

TEST_CASE("the other methods have PEFT's defaults and keys too") {
    const TemporaryDirectory directory;
    const auto read_any = [&](const std::string& text) {
        write_file(directory / "adapter_config.json", text);
        return read_adapter_config(directory.path());
    };
    const auto vera = std::get<VeraConfig>(read_any(R"({"peft_type": "VERA", "bias": "vera_only", "x": 1})"));
    CHECK(vera.r == 256);
    CHECK(vera.d_initial == 0.1);
    CHECK(vera.vera_dropout == 0);
    CHECK(vera.bias == BiasMode::lora_only);
    CHECK(vera.unknown_keys == Names{"x"});
    const json written = peft_config(vera, true);
    CHECK(written.at("bias") == "vera_only");
    CHECK(written.at("save_projection") == true);
    CHECK_FALSE(written.contains("exclude_modules"));

    const auto ia3 = std::get<Ia3Config>(read_any(
        R"({"peft_type": "IA3", "target_modules": ["k", "w0"], "feedforward_modules": ["w0"], "modules_to_save": null})"));
    CHECK(ia3.init_ia3_weights);
    CHECK(is_feedforward(ia3, "h.0.w0"));
    CHECK(is_feedforward(ia3, "h.0.xw0")); // PEFT compares ends here, not names
    CHECK_FALSE(is_feedforward(ia3, "h.0.k"));
    CHECK_FALSE(peft_config(ia3, false).contains("bias"));
    Ia3Config by_pattern;
    by_pattern.feedforward_modules = regex(R"(.*\.w\d)");
    CHECK(is_feedforward(by_pattern, "h.0.w0"));
    CHECK_FALSE(is_feedforward(by_pattern, "h.0.w0.x"));

    CHECK(refusal(R"({"peft_type": "VERA", "r": 0})").find("'r'") != std::string::npos);
    CHECK(refusal(R"({"peft_type": "VERA", "bias": "lora_only"})").find("\"vera_only\"") != std::string::npos);
    CHECK(refusal(R"({"peft_type": "VERA", "save_projection": false})").find("save_projection=True") !=
          std::string::npos);
    CHECK(refusal(R"({"peft_type": "IA3", "feedforward_modules": "("})").find("'('") != std::string::npos);
    CHECK(refusal(R"({"peft_type": "IA3", "feedforward_modules": 3})").find("feedforward_modules") !=
          std::string::npos);
}
