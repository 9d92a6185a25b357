#include "report.hpp"

#include <array>

#include <fmt/core.h>

#include "lowrank/train/svg_chart.hpp"

namespace examples {

std::string comparison_table(const std::vector<Outcome>& outcomes, double base_loss) {
    std::string text = fmt::format("{:<8} {:>13} {:>11} {:>10} {:>9} {:>8} {:>9} {:>9}\n", "method", "learning rate",
                                   "trainable", "train loss", "eval loss", "seconds", "peak MB", "saved kB");
    text += fmt::format("{:<8} {:>13} {:>11} {:>10} {:>9.4f}\n", "(base)", "", "", "", base_loss);
    for (const Outcome& o : outcomes) {
        text += fmt::format("{:<8} {:>13.3g} {:>11} {:>10.4f} {:>9.4f} {:>8.1f} {:>9.0f} {:>9.1f}\n", o.name,
                            o.learning_rate, o.trainable, o.train_loss, o.eval_loss, o.seconds, o.peak_memory_mb,
                            static_cast<double>(o.bytes) / 1e3);
    }
    return text;
}

std::string comparison_chart(const std::vector<Outcome>& outcomes) {
    constexpr std::array<const char*, 10> colours = {"#d1580b", "#1f77b4", "#2a9d4a", "#9467bd", "#8c564b",
                                                     "#c2185b", "#17a2b8", "#b8a100", "#444c56", "#6fa8dc"};
    std::vector<lowrank::ChartSeries> curves;
    std::string style;
    for (const Outcome& o : outcomes) {
        style += fmt::format(".line{0} .line {{ stroke: {1}; }} .line{0} circle, .line{0} .legend {{ fill: {1}; }}\n",
                             curves.size(), colours[curves.size() % colours.size()]);
        curves.push_back({o.name, o.curve, true});
    }
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"960\" height=\"450\" viewBox=\"0 0 640 300\">\n"
           "<style>.chart { font: 12px system-ui, sans-serif; } text { fill: #5b6675; }\n"
           ".chart .title { fill: #1c2430; font-weight: 600; } .chart .legend { font-size: 10px; font-weight: 600; }\n"
           ".grid { stroke: #dfe4ea; fill: none; } .line { stroke-width: 1.6; fill: none; }\n" +
           style + "</style>\n<rect width=\"640\" height=\"300\" fill=\"#fff\"/>\n" +
           lowrank::svg_line_chart("Evaluation loss", "optimizer steps", curves) + "</svg>\n";
}

lowrank::json comparison_json(const std::vector<Outcome>& outcomes, double base_loss, std::int64_t steps) {
    lowrank::json methods = lowrank::json::array();
    for (const Outcome& o : outcomes) {
        lowrank::json curve = lowrank::json::array();
        for (const auto& [step, loss] : o.curve) {
            curve.push_back({{"step", step}, {"eval_loss", loss}});
        }
        methods.push_back({{"method", o.name},
                           {"learning_rate", o.learning_rate},
                           {"trainable", o.trainable},
                           {"train_loss", o.train_loss},
                           {"eval_loss", o.eval_loss},
                           {"seconds", o.seconds},
                           {"peak_memory_mb", o.peak_memory_mb},
                           {"saved_bytes", o.bytes},
                           {"curve", curve}});
    }
    return {{"base_eval_loss", base_loss}, {"steps", steps}, {"methods", methods}};
}

} // namespace examples
