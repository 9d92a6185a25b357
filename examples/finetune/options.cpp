#include "options.hpp"

#include <filesystem>
#include <vector>

#include "lowrank/adapters/peft_config.hpp"
#include "lowrank/train/fingerprint.hpp"

namespace examples {

void refuse_contradictions(const FinetuneOptions& options, const CLI::App& app) {
    refuse_without_effect(options, app);
    if (options.eval_split > 0 && !options.eval_data.empty()) {
        throw lowrank::OptionError("--eval-split: found --eval-data too, expected one of them");
    }
    if (options.packing && options.loader.group_by_length) {
        throw lowrank::OptionError(
            "--group-by-length: found --packing too, expected one of them: packed rows are all long");
    }
    refuse_contradictions(options, !options.eval_data.empty() || options.eval_split > 0);
}

NamedValues effective_options(const FinetuneOptions& options, const Program& app) {
    std::vector<std::string> left_out = options_without_effect(options);
    left_out.insert(left_out.end(), {"--overwrite-output-dir", "--resume"}); // leave for one run is not for the next
    if (!options.init_adapter.empty() && app.count("--lora-dropout") == 0) {
        left_out.push_back("--lora-dropout"); // the adapter's own
    }
    return ConfigFile(app).in_effect(left_out);
}

lowrank::RunSettings run_settings(const FinetuneOptions& options, const Program& app,
                                  const lowrank::AdapterConfig& config, const lowrank::Dataset& data,
                                  const std::optional<lowrank::Dataset>& eval_data) {
    lowrank::RunSettings settings;
    for (const auto& [name, value] : effective_options(options, app)) {
        settings[name] = value;
    }
    for (const char* name :
         {"model", "data", "eval-data", "output", "init-adapter", "threads", "log-file", "logging-steps", "logging-dir",
          "report-to", "report-samples", "save-steps", "save-strategy", "save-total-limit", "loss-watchdog"}) {
        settings.erase(name);
    }
    const std::string paged = "paged_"; // where moments lie changes nothing
    if (const std::size_t at = settings["optim"].find(paged); at != std::string::npos) {
        settings["optim"].erase(at, paged.size());
    }
    settings["the rows of --data"] = lowrank::fingerprint(data);
    if (eval_data) {
        settings["the rows of the evaluation"] = lowrank::fingerprint(*eval_data);
    }
    if (!options.init_adapter.empty()) {
        settings["the settings of --init-adapter"] = lowrank::peft_config(config, false).dump();
    }
    for (const auto& entry : std::filesystem::directory_iterator(options.model.model)) {
        if (entry.path().extension() == ".safetensors" || entry.path().filename() == "config.json") {
            settings[lowrank::concat("the file ", entry.path().filename().string(), " of --model")] =
                lowrank::sampled_fingerprint(entry.path());
        }
    }
    return settings;
}

} // namespace examples
