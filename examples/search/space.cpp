#include "space.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "number.hpp"

namespace examples {

namespace {

constexpr double largest = std::numeric_limits<double>::max();
constexpr double most_rank = 1 << 20; // what adapter_config.json may hold

/// What the entries of an option say: numbers from `low` to `high` that fulfil a condition, as `expected` describes
/// them. Ranges are taken evenly in the logarithm or as they are.
struct Entries {
    const char* option;
    const char* expected;
    double low, high;
    bool logarithmic = true;
    bool (*fits)(double) = [](double) { return true; };

    double number(const std::string& text) const {
        const auto value = read_number(text, low, high);
        if (!value || !fits(*value)) {
            throw lowrank::OptionError(
                fmt::format("{}: found '{}', expected {} as a list a,b,c or a range a:b", option, text, expected));
        }
        return *value;
    }

    lowrank::SearchRange range(const std::vector<std::string>& entries) const {
        const std::size_t colon = entries.size() == 1 ? entries[0].find(':') : std::string::npos;
        if (colon == std::string::npos) {
            std::vector<double> values;
            for (const std::string& entry : entries) {
                values.push_back(number(entry));
            }
            return lowrank::SearchRange::choices(values);
        }
        const double from = number(entries[0].substr(0, colon)), to = number(entries[0].substr(colon + 1));
        if (from > to || (logarithmic && from <= 0)) {
            throw lowrank::OptionError(fmt::format("{}: found '{}', expected a range from low to high{}", option,
                                                   entries[0], logarithmic ? ", both above 0" : ""));
        }
        return logarithmic ? lowrank::SearchRange::log_uniform(from, to) : lowrank::SearchRange::uniform(from, to);
    }
};

constexpr Entries ranks{
    "--r", "integers from 1 to 1048576", 1, most_rank, true, [](double r) { return r == std::floor(r); }};
constexpr Entries ratios{"--lora-alpha-ratio", "numbers of 0 or more", 0, largest};
constexpr Entries alphas{"--lora-alpha", "numbers", -largest, largest};
constexpr Entries rates{"--learning-rate", "numbers above 0", std::numeric_limits<double>::min(), largest};
constexpr Entries dropouts{"--lora-dropout", "numbers from 0 to 0.999", 0, 0.999, false};
constexpr Entries loraplus_ratios{
    "--loraplus-lr-ratio", "0 or numbers of 1 or more", 0, largest, true, [](double ratio) {
        return ratio == 0 || ratio >= 1;
    }};

} // namespace

void add_space_options(CLI::App& app, SpaceOptions& o) {
    const auto add = [&](const char* name, std::vector<std::string>& entries, const char* help) {
        return app.add_option(name, entries, help)->default_str(fmt::format("{}", fmt::join(entries, ",")));
    };
    add("--r", o.r, "ranks: a list 4,8,16, or a range 4:64, evenly in the logarithm")->delimiter(',');
    add("--lora-alpha-ratio", o.lora_alpha_ratio, "alphas as multiples of the rank, likewise")->delimiter(',');
    add("--lora-alpha", o.lora_alpha, "alphas themselves, instead of multiples, likewise")->delimiter(',');
    add("--learning-rate", o.learning_rate, "learning rates, likewise")->delimiter(',');
    add("--lora-dropout", o.lora_dropout, "dropouts before A: a list, or a range, evenly")->delimiter(',');
    add("--loraplus-lr-ratio", o.loraplus_lr_ratio,
        "LoRA+, how many times faster B learns: a list (0: off), or a range, evenly in the logarithm")
        ->delimiter(',');
    add("--target-modules", o.target_modules,
        "one or more sets, each of names with commas between them, or all-linear, or a pattern");
}

std::string TrialSettings::describe() const {
    return fmt::format("r {}, alpha {:g}, learning rate {:g}{}{}, {}", r, lora_alpha, learning_rate,
                       lora_dropout > 0 ? fmt::format(", dropout {:g}", lora_dropout) : "",
                       loraplus_lr_ratio > 0 ? fmt::format(", LoRA+ {:g}", loraplus_lr_ratio) : "",
                       fmt::join(target_modules, " "));
}

SearchSpace::SearchSpace(const SpaceOptions& options, const CLI::App& app)
    : r_(ranks.range(options.r)),
      ratio_(ratios.range(options.lora_alpha_ratio)),
      learning_rate_(rates.range(options.learning_rate)),
      lora_dropout_(dropouts.range(options.lora_dropout)),
      loraplus_lr_ratio_(loraplus_ratios.range(options.loraplus_lr_ratio)) {
    if (!options.lora_alpha.empty()) {
        if (app.count("--lora-alpha-ratio") > 0) {
            throw lowrank::OptionError("--lora-alpha: found --lora-alpha-ratio too, expected one of them");
        }
        alpha_ = alphas.range(options.lora_alpha);
    }
    for (const std::string& set : options.target_modules) {
        const bool is_pattern = set.find_first_of("*+?[](){}|^$\\") != std::string::npos; // may hold commas
        target_modules_.push_back(is_pattern ? std::vector{set} : CLI::detail::split(set, ','));
    }
}

std::vector<TrialSettings> SearchSpace::draw(std::int64_t count, std::uint64_t seed) const {
    constexpr int most_attempts = 1000; // to find one that was not drawn yet
    lowrank::Rng rng(seed, 0x53454152); // "SEAR", a stream of its own
    std::vector<TrialSettings> drawn;
    for (int attempts = 0; std::int64_t(drawn.size()) < count && attempts < most_attempts; ++attempts) {
        const TrialSettings one = draw(rng);
        if (std::find(drawn.begin(), drawn.end(), one) == drawn.end()) {
            drawn.push_back(one);
            attempts = 0;
        }
    }
    return drawn;
}

TrialSettings SearchSpace::draw(lowrank::Rng& rng) const {
    TrialSettings one;
    one.r = std::llround(r_.draw(rng));
    one.lora_alpha = alpha_ ? alpha_->draw(rng) : ratio_.draw(rng) * double(one.r);
    one.learning_rate = learning_rate_.draw(rng);
    one.lora_dropout = lora_dropout_.draw(rng);
    one.loraplus_lr_ratio = loraplus_lr_ratio_.draw(rng);
    one.target_modules = target_modules_[rng.below(std::uint32_t(target_modules_.size()))];
    return one;
}

} // namespace examples
