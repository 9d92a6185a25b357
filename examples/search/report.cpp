#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "lowrank/train/svg_chart.hpp"

namespace examples {

double TrialRecord::loss() const {
    return state == "failed" || history.evaluations().empty() ? std::numeric_limits<double>::quiet_NaN()
                                                              : history.evaluations().back().loss;
}

double TrialRecord::train_loss() const {
    const auto& all = history.steps();
    const std::size_t count = std::min<std::size_t>(10, all.size());
    double sum = 0;
    for (std::size_t i = all.size() - count; i < all.size(); ++i) {
        sum += all[i].loss;
    }
    return sum / double(count);
}

bool TrialRecord::better_than(const TrialRecord& other) const {
    const bool known = std::isfinite(loss()), other_known = std::isfinite(other.loss());
    if (!known || !other_known) {
        return known && !other_known;
    }
    return steps() != other.steps() ? steps() > other.steps() : loss() < other.loss();
}

std::vector<const TrialRecord*> ranking(const std::vector<TrialRecord>& trials) {
    std::vector<const TrialRecord*> order;
    for (const TrialRecord& trial : trials) {
        if (trial.state != "waiting") {
            order.push_back(&trial);
        }
    }
    std::stable_sort(order.begin(), order.end(),
                     [](const TrialRecord* a, const TrialRecord* b) { return a->better_than(*b); });
    return order;
}

std::string trial_line(const TrialRecord& trial) {
    using lowrank::json_number;
    using nlohmann::ordered_json;
    const TrialSettings& s = trial.settings;
    ordered_json evaluations = ordered_json::array();
    for (const lowrank::EvaluationMetrics& one : trial.history.evaluations()) {
        evaluations.push_back({{"step", one.step}, {"eval_loss", json_number(one.loss)}});
    }
    ordered_json losses = ordered_json::array();
    for (const lowrank::StepMetrics& one : trial.history.steps()) {
        losses.push_back(json_number(one.loss));
    }
    ordered_json line = {{"trial", trial.number},
                         {"state", trial.state},
                         {"settings",
                          {{"r", s.r},
                           {"lora_alpha", s.lora_alpha},
                           {"learning_rate", s.learning_rate},
                           {"lora_dropout", s.lora_dropout},
                           {"loraplus_lr_ratio", s.loraplus_lr_ratio},
                           {"target_modules", s.target_modules}}},
                         {"steps", trial.steps()},
                         {"eval_loss", json_number(trial.loss())},
                         {"seconds", trial.seconds},
                         {"evaluations", evaluations},
                         {"losses", losses}};
    if (!trial.error.empty()) {
        line["error"] = trial.error;
    }
    return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string trial_table(const std::vector<const TrialRecord*>& order) {
    std::string text = fmt::format("{:>5} {:>5} {:>7} {:>13} {:>7} {:>6} {:>6} {:>10} {:>9} {:>10} {:>7} {:>11}  {}\n",
                                   "trial", "r", "alpha", "learning rate", "dropout", "LoRA+", "steps", "train loss",
                                   "eval loss", "perplexity", "seconds", "state", "target modules");
    for (const TrialRecord* trial : order) {
        const TrialSettings& s = trial->settings;
        const bool known = std::isfinite(trial->loss());
        text += fmt::format(
            "{:>5} {:>5} {:>7.6g} {:>13.6g} {:>7.3g} {:>6} {:>6} {:>10.4f} {:>9} {:>10} {:>7.1f} {:>11}  {}\n",
            trial->number, s.r, s.lora_alpha, s.learning_rate, s.lora_dropout,
            s.loraplus_lr_ratio > 0 ? fmt::format("{:.4g}", s.loraplus_lr_ratio) : "off", trial->steps(),
            trial->train_loss(), known ? fmt::format("{:.4f}", trial->loss()) : "-",
            known ? fmt::format("{:.3f}", std::exp(trial->loss())) : "-", trial->seconds, trial->state,
            fmt::join(s.target_modules, ","));
    }
    return text;
}

std::string search_chart(const std::vector<const TrialRecord*>& order, double base_loss, std::int64_t first_rung) {
    std::vector<lowrank::ChartSeries> curves, rates;
    const auto shown = [&](double loss) {
        return loss <= 2 * base_loss ? loss : std::numeric_limits<double>::quiet_NaN();
    };
    for (const TrialRecord* trial : order) {
        const std::string name = fmt::format("trial {}: {}:", trial->number, trial->settings.describe());
        const bool is_best = trial == order.front();
        lowrank::ChartSeries curve{name, {{0.0, base_loss}}, false}, rate{name, {}, false};
        for (const lowrank::EvaluationMetrics& one : trial->history.evaluations()) {
            curve.points.emplace_back(static_cast<double>(one.step), shown(one.loss));
            if (one.step == first_rung) {
                rate.points.emplace_back(std::log10(trial->settings.learning_rate), shown(one.loss));
            }
        }
        if (is_best) { // its name is short enough for the legend
            curve.name = rate.name = fmt::format("best: trial {}", trial->number);
            curve.in_legend = rate.in_legend = true;
        }
        curves.push_back(curve);
        rates.push_back(rate);
    }
    // Each chart fills the svg element around it, which has the place and the size.
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"960\" height=\"930\" viewBox=\"0 0 640 620\">\n"
           "<style>.chart { font: 12px system-ui, sans-serif; } text { fill: #5b6675; }\n"
           ".chart .title { fill: #1c2430; font-weight: 600; font-size: 14px; }\n"
           ".grid { stroke: #dfe4ea; fill: none; } .line { stroke: #8fa3b8; stroke-width: 1.2; fill: none; }\n"
           "circle { fill: #8fa3b8; } .line0 .line { stroke: #d1580b; stroke-width: 2.6; } .line0 circle,\n"
           ".chart .legend { fill: #d1580b; font-weight: 600; }</style>\n"
           "<rect width=\"640\" height=\"620\" fill=\"#fff\"/>\n"
           "<svg width=\"640\" height=\"300\">" +
           lowrank::svg_line_chart("Evaluation loss", "optimizer steps", curves) +
           "</svg>\n<svg y=\"310\" width=\"640\" height=\"300\">" +
           lowrank::svg_line_chart(fmt::format("Evaluation loss after {} steps", first_rung),
                                   "learning rate, as power of ten", rates) +
           "</svg>\n</svg>\n";
}

} // namespace examples
