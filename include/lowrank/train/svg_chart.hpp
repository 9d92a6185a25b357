// A line chart as an SVG element, for reports.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"

namespace lowrank {

/// Text made safe inside of HTML and SVG elements and attributes; control characters but line breaks and tabs are
/// shown as U+FFFD.
inline std::string html_escape(std::string_view text) {
    std::string out;
    for (const char c : text) {
        switch (c) {
        case '&': out += "&amp;"; break;
        case '<': out += "&lt;"; break;
        case '>': out += "&gt;"; break;
        case '"': out += "&quot;"; break;
        case '\'': out += "&#39;"; break;
        default:
            const auto byte = static_cast<unsigned char>(c);
            out += (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f ? "\xEF\xBF\xBD" : std::string(1, c);
        }
    }
    return out;
}

/// A line of a chart: points with rising x. Where y is not finite, the line is interrupted.
struct ChartSeries {
    std::string name;
    std::vector<std::pair<double, double>> points;
    bool in_legend = true;
};

namespace detail {

/// An interval with round bounds and the distance of its ticks (1, 2 or 5 times a power of ten).
struct ChartScale {
    double low = 0, high = 1, step = 0.2;

    static ChartScale around(double low, double high) {
        if (!(low <= high)) { // no point at all
            return {};
        }
        if (low == high) {
            const double margin = low == 0 ? 1 : std::abs(low) * 0.1;
            low -= margin, high += margin;
        }
        constexpr double ticks = 5;
        const double rough = (high - low) / ticks, power = std::pow(10, std::floor(std::log10(rough)));
        const double step = power * (rough / power > 5 ? 10 : rough / power > 2 ? 5 : rough / power > 1 ? 2 : 1);
        return {std::floor(low / step) * step, std::ceil(high / step) * step, step};
    }
    double part(double value) const { return (value - low) / (high - low); }
};

inline std::string chart_number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", std::abs(value) < 1e-300 ? 0.0 : value);
    return text;
}

/// At most about `limit` points: neighbours are averaged.
inline std::vector<std::pair<double, double>> thinned(const std::vector<std::pair<double, double>>& points,
                                                      std::size_t limit) {
    const std::size_t group = (points.size() + limit - 1) / limit;
    if (group <= 1) {
        return points;
    }
    std::vector<std::pair<double, double>> fewer;
    for (std::size_t begin = 0; begin < points.size(); begin += group) {
        const std::size_t end = std::min(begin + group, points.size());
        double x = 0, y = 0;
        for (std::size_t i = begin; i < end; ++i) {
            x += points[i].first, y += points[i].second;
        }
        fewer.emplace_back(x / static_cast<double>(end - begin), y / static_cast<double>(end - begin));
    }
    return fewer;
}

} // namespace detail

/// A chart 640 × 300 with axes, grid, a legend where there are several lines, and each point's values as its tooltip.
/// Classes for a style sheet: chart, grid, tick, label, and line0, line1, … for the colours (`color` of each).
inline std::string svg_line_chart(std::string_view title, std::string_view x_label,
                                  const std::vector<ChartSeries>& all) {
    constexpr double width = 640, height = 300, left = 64, right = 16, top = 30, bottom = 42;
    constexpr std::size_t most_points = 500, most_marks = 60;
    double low_x = std::numeric_limits<double>::infinity(), high_x = -low_x, low_y = low_x, high_y = -low_x;
    std::vector<ChartSeries> series = all;
    for (ChartSeries& one : series) {
        one.points = detail::thinned(one.points, most_points);
        for (const auto& point : one.points) {
            if (std::isfinite(point.second)) {
                low_x = std::min(low_x, point.first), high_x = std::max(high_x, point.first);
                low_y = std::min(low_y, point.second), high_y = std::max(high_y, point.second);
            }
        }
    }
    const detail::ChartScale sx = detail::ChartScale::around(low_x, high_x);
    const detail::ChartScale sy = detail::ChartScale::around(low_y, high_y);
    const auto at_x = [&](double x) { return left + sx.part(x) * (width - left - right); };
    const auto at_y = [&](double y) { return height - bottom - sy.part(y) * (height - top - bottom); };

    std::string out;
    const auto add = [&out](const char* format, auto... values) {
        std::array<char, 256> text{};
        std::snprintf(text.data(), text.size(), format, values...);
        out += text.data();
    };
    const std::string safe_title = html_escape(title);
    out += "<svg class=\"chart\" role=\"img\" viewBox=\"0 0 640 300\" aria-label=\"" + safe_title + "\">\n";
    for (double y = sy.low; y <= sy.high + sy.step / 2; y += sy.step) {
        add("<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>", left, at_y(y), width - right);
        add("<text class=\"tick\" text-anchor=\"end\" x=\"%.1f\" y=\"%.1f\">", left - 6, at_y(y) + 4);
        out += detail::chart_number(std::abs(y) < sy.step / 1e6 ? 0 : y) + "</text>\n";
    }
    for (double x = sx.low; x <= sx.high + sx.step / 2; x += sx.step) {
        add("<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/>", at_x(x), top, height - bottom);
        add("<text class=\"tick\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">", at_x(x), height - bottom + 18);
        out += detail::chart_number(std::abs(x) < sx.step / 1e6 ? 0 : x) + "</text>\n";
    }
    add("<text class=\"label\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">", (left + width - right) / 2, height - 6);
    out += html_escape(x_label) + "</text>\n";
    add("<text class=\"title\" x=\"%.1f\" y=\"18\">", left);
    out += safe_title + "</text>\n";
    double legend = width - right;
    for (std::size_t i = series.size(); i-- > 0;) {
        const ChartSeries& one = series[i];
        add("<g class=\"line%zu\">", i);
        std::string path;
        bool down = false;
        for (const auto& [x, y] : one.points) {
            if (!std::isfinite(y)) {
                down = false;
                continue;
            }
            path += concat(down ? "L" : "M", detail::chart_number(at_x(x)), " ", detail::chart_number(at_y(y)));
            down = true;
        }
        out += "<path class=\"line\" d=\"" + path + "\"/>\n";
        for (const auto& [x, y] : one.points) {
            if (std::isfinite(y) && one.points.size() <= most_marks) {
                add("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"><title>", at_x(x), at_y(y));
                out += html_escape(one.name) + " " + detail::chart_number(y) + " at " + detail::chart_number(x) +
                       "</title></circle>\n";
            }
        }
        if (series.size() > 1 && one.in_legend) {
            add("<text class=\"legend\" text-anchor=\"end\" x=\"%.1f\" y=\"18\">", legend);
            out += html_escape(one.name) + "</text>";
            legend -= 8.0 * static_cast<double>(one.name.size()) + 16;
        }
        out += "</g>\n";
    }
    return out + "</svg>\n";
}

} // namespace lowrank
