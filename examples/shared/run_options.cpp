#include "run_options.hpp"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include <fmt/core.h>

#include "lowrank/train/checkpoint.hpp"
#include "number.hpp"
#include "say.hpp"

namespace examples {

void add_run_options(CLI::App& app, RunOptions& o) {
    app.add_option("--optim", o.optim, "AdamW with moments in fp32 or 8 bits; paged: in a file instead of memory")
        ->check(CLI::IsMember({"adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"}));
    app.add_option("--eval-steps", o.eval_steps, "evaluate every n steps too")->check(number<std::int64_t>(0));

    app.add_option("--eval-strategy", o.eval_strategy, "evaluate by --eval-steps, or after each epoch")
        ->check(CLI::IsMember({"steps", "epoch"}));
    app.add_option("--early-stopping-patience", o.early_stopping_patience,
                   "end after n evaluations in a row without improvement; 0: off")
        ->check(number<std::int64_t>(0));
    app.add_option("--early-stopping-threshold", o.early_stopping_threshold,
                   "what counts as an improvement of the loss")
        ->check(number(0.0));
    app.add_flag("--load-best-model-at-end", o.load_best_model_at_end, "the output is that of the best evaluation");
    app.add_option("--save-steps", o.save_steps, "write output/checkpoint-<step> every n steps; 0: off")
        ->check(number<std::int64_t>(0));
    app.add_option("--save-strategy", o.save_strategy, "checkpoints by --save-steps, or after each epoch")
        ->check(CLI::IsMember({"steps", "epoch"}));
    app.add_option("--save-total-limit", o.save_total_limit, "keep the last n checkpoints, and the best; 0: all")
        ->check(number<std::int64_t>(0));
    app.add_option("--resume", o.resume, "go on from this checkpoint of --output, or from the latest one")
        ->expected(0, 1)
        ->default_str("latest");
    app.add_option("--loss-watchdog", o.loss_watchdog, "when the loss diverges: warn, stop with an error, or off")
        ->check(CLI::IsMember({"warn", "stop", "off"}));
}

void choose_moments(lowrank::AdamWOptions& adamw, const std::string& optim, const std::string& output) {
    adamw.eight_bit = optim.ends_with("8bit");
    if (optim.starts_with("paged")) {
        const char* temporary = std::getenv("TMPDIR");
        std::filesystem::path directory = std::filesystem::absolute(output);
        while (!std::filesystem::is_directory(directory) && directory.has_relative_path()) {
            directory = directory.parent_path();
        }
        adamw.paged_directory = temporary != nullptr && *temporary != '\0' ? temporary : directory.string();
    }
}

void refuse_contradictions(const RunOptions& options, bool evaluates) {
    const auto needs = [](bool given, const char* option, bool there, const char* other) {
        if (given && !there) {
            throw lowrank::OptionError(fmt::format("{} needs {}", option, other));
        }
    };
    const bool at_times = options.eval_steps > 0 || options.eval_strategy == "epoch";
    needs(options.eval_steps > 0, "--eval-steps", evaluates, "--eval-data or --eval-split");
    needs(options.eval_strategy == "epoch", "--eval-strategy", evaluates, "--eval-data or --eval-split");
    needs(options.load_best_model_at_end, "--load-best-model-at-end", evaluates, "--eval-data or --eval-split");
    needs(options.early_stopping_patience > 0, "--early-stopping-patience", evaluates && at_times,
          "--eval-data or --eval-split, and --eval-steps or --eval-strategy epoch");
    needs(options.save_total_limit > 0, "--save-total-limit", options.saves(), "--save-steps or --save-strategy epoch");
}

std::optional<std::filesystem::path> checkpoint_to_resume(const RunOptions& options, const std::string& output,
                                                          const CLI::App& app) {
    if (app.count("--resume") == 0) {
        return std::nullopt;
    }
    lowrank::remove_leftovers(output, staging);
    if (options.resume.empty() || options.resume == "latest") {
        const auto latest = lowrank::latest_checkpoint(output);
        if (!latest) {
            say(stderr, "--resume: no checkpoint in '{}', starting anew\n", output);
        }
        return latest;
    }
    const std::filesystem::path wanted =
        std::filesystem::path(output) / std::filesystem::path(options.resume + "/").parent_path().filename();
    const std::vector<std::int64_t> steps = lowrank::checkpoint_steps(output);
    if (std::none_of(steps.begin(), steps.end(),
                     [&](std::int64_t step) { return lowrank::checkpoint_path(output, step) == wanted; })) {
        throw lowrank::OptionError(lowrank::concat("--resume: found '", options.resume,
                                                   "', expected latest or a checkpoint in --output ", output,
                                                   steps.empty() ? ", which has none" : ", such as checkpoint-",
                                                   steps.empty() ? "" : std::to_string(steps.back())));
    }
    return wanted;
}

} // namespace examples
