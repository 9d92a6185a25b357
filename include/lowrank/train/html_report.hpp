// One self-contained HTML page about a run: curves, settings, and what the model wrote before and after.
#pragma once

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "lowrank/train/history.hpp"
#include "lowrank/train/svg_chart.hpp"

namespace lowrank {

/// What a report says beside the metrics. Texts are UTF-8, as they are: the report escapes them.
struct ReportContent {
    /// A prompt, and how the model went on before and after training.
    struct Sample {
        std::string prompt, expected, before, after;
    };

    std::string title;
    std::vector<std::pair<std::string, std::string>> summary;  ///< what and how much: shown on top
    std::vector<std::pair<std::string, std::string>> settings; ///< name and value
    std::vector<Sample> samples;
};

namespace detail {

inline constexpr const char* report_style = R"(
:root { color-scheme: light dark; --back: #fff; --text: #1c2430; --dim: #5b6675; --rule: #dfe4ea; --card: #f6f8fa;
  --line0: #1f6feb; --line1: #d1580b; }
@media (prefers-color-scheme: dark) { :root { --back: #12161c; --text: #e4e9ef; --dim: #9aa7b5; --rule: #2d3641;
  --card: #1a2028; --line0: #6cb0ff; --line1: #ffa657; } }
body { margin: 0 auto; max-width: 1180px; padding: 24px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 12px; } h2 { font-size: 18px; margin: 32px 0 12px; }
.cards { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px; }
.summary { display: flex; flex-wrap: wrap; gap: 12px 32px; } .summary div span { display: block; color: var(--dim); }
.chart { width: 100%; height: auto; display: block; font: 12px system-ui, sans-serif; }
.chart text { fill: var(--dim); } .chart .title { fill: var(--text); font-weight: 600; font-size: 14px; }
.grid { stroke: var(--rule); fill: none; } .line { stroke: currentColor; stroke-width: 1.8; fill: none; }
circle { fill: currentColor; } .line0 { color: var(--line0); } .line1 { color: var(--line1); }
.chart .legend { fill: currentColor; font-weight: 600; }
table { border-collapse: collapse; width: 100%; } td, th { border-bottom: 1px solid var(--rule); padding: 4px 12px 4px 0;
  text-align: left; vertical-align: top; overflow-wrap: anywhere; } th { font-weight: 600; color: var(--dim); }
td.text { white-space: pre-wrap; font: 13px/1.45 ui-monospace, monospace; min-width: 120px; }
.wide { overflow-x: auto; }
)";

inline std::string report_table(const std::vector<std::string>& heads,
                                const std::vector<std::vector<std::string>>& rows, bool text) {
    std::string out = "<div class=\"wide\"><table>\n<tr>";
    for (const std::string& head : heads) {
        out += "<th>" + html_escape(head) + "</th>";
    }
    out += "</tr>\n";
    for (const std::vector<std::string>& row : rows) {
        out += "<tr>";
        for (const std::string& cell : row) {
            out += (text ? "<td class=\"text\">" : "<td>") + html_escape(cell) + "</td>";
        }
        out += "</tr>\n";
    }
    return out + "</table></div>\n";
}

} // namespace detail

/// The page. It loads nothing: style and charts are in it, light and dark.
inline std::string html_report(const ReportContent& content, const MetricsHistory& history) {
    const auto curve = [&](const std::string& name, const auto& metrics, const auto& value) {
        ChartSeries series{name, {}};
        for (const auto& one : metrics) {
            series.points.emplace_back(static_cast<double>(one.step), value(one));
        }
        return series;
    };
    const auto step_curve = [&](const std::string& name, const auto& value) {
        return curve(name, history.steps(), value);
    };
    std::string out = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
                      html_escape(content.title) + "</title>\n<style>" + detail::report_style +
                      "</style>\n</head>\n<body>\n<h1>" + html_escape(content.title) +
                      "</h1>\n<div class=\"summary\">\n";
    for (const auto& entry : content.summary) {
        out += "<div><span>" + html_escape(entry.first) + "</span>" + html_escape(entry.second) + "</div>\n";
    }
    out += "</div>\n<h2>Curves</h2>\n<div class=\"cards\">\n";
    const auto chart = [&](const std::string& title, const std::vector<ChartSeries>& series) {
        out += "<div class=\"card\">" + svg_line_chart(title, "step", series) + "</div>\n";
    };
    std::vector<ChartSeries> losses = {step_curve("training", [](const StepMetrics& m) { return m.loss; })};
    if (!history.evaluations().empty()) {
        losses.push_back(curve("evaluation", history.evaluations(), [](const EvaluationMetrics& m) { return m.loss; }));
    }
    chart("Loss", losses);
    chart("Learning rate", {step_curve("learning rate", [](const StepMetrics& m) { return m.learning_rate; })});
    chart("Gradient norm", {step_curve("gradient norm", [](const StepMetrics& m) { return m.grad_norm; })});
    chart("Tokens per second",
          {step_curve("tokens per second", [](const StepMetrics& m) { return m.tokens_per_second(); })});
    out += "</div>\n";
    if (!content.samples.empty()) {
        std::vector<std::vector<std::string>> rows;
        for (const ReportContent::Sample& sample : content.samples) {
            rows.push_back({sample.prompt, sample.expected, sample.before, sample.after});
        }
        out += "<h2>Samples</h2>\n" + detail::report_table({"prompt", "expected", "before", "after"}, rows, true);
    }
    std::vector<std::vector<std::string>> rows;
    for (const auto& entry : content.settings) {
        rows.push_back({entry.first, entry.second});
    }
    return out + "<h2>Settings</h2>\n" + detail::report_table({"setting", "value"}, rows, false) + "</body>\n</html>\n";
}

} // namespace lowrank
