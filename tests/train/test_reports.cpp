// Logs and reports: JSON Lines, CSV, TensorBoard's event files, charts and the HTML page.

#include <cmath>
#include <doctest/doctest.h>
#include <limits>

#include "io/temporary_directory.hpp"
#include "lowrank/train/csv_log.hpp"
#include "lowrank/train/html_report.hpp"
#include "lowrank/train/tensorboard.hpp"

using namespace lowrank;

namespace {

StepMetrics step_at(std::int64_t step, double loss) {
    StepMetrics m;
    m.step = step;
    m.epoch = 0.25 * static_cast<double>(step);
    m.loss = loss;
    m.learning_rate = 1e-3;
    m.grad_norm = 0.5;
    m.tokens = 100;
    m.seconds = 0.5;
    m.peak_memory_mb = 12;
    return m;
}

EvaluationMetrics evaluation_at(std::int64_t step, double loss) {
    EvaluationMetrics m;
    m.step = step;
    m.loss = loss;
    return m;
}

/// Steps 1 to 7 of 7, of which 1, 3, 6 and 7 are logged, and evaluations after 2 and 6.
void play(TrainerCallback& callback) {
    TrainerState state;
    state.max_steps = 7;
    callback.on_train_begin(state);
    for (std::int64_t step = 1; step <= 7; ++step) {
        StepMetrics m = step_at(step, step == 6 ? std::numeric_limits<double>::quiet_NaN() : 4.0 / double(step));
        m.skipped = step == 6;
        callback.on_step_end(m, state);
        if (step % 4 == 2) {
            callback.on_evaluate(evaluation_at(step, 2.0), state);
        }
    }
}

std::size_t count(const std::string& text, const std::string& part) {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) {
        ++found;
    }
    return found;
}

} // namespace

TEST_CASE("the history keeps what is logged, across a resume, and writes it as it comes") {
    const TemporaryDirectory directory;
    MetricsHistory history(3);
    history.follow(directory / "live.jsonl");
    play(history);
    std::vector<std::int64_t> steps;
    for (const StepMetrics& m : history.steps()) {
        steps.push_back(m.step);
    }
    CHECK(steps == std::vector<std::int64_t>{1, 3, 6, 7});
    CHECK(history.evaluations().size() == 2);
    CHECK(file_bytes(directory / "live.jsonl") == history.lines());
    CHECK(history.complete());
    CHECK(history.lines().substr(0, history.lines().find('\n')) ==
          R"({"step":1,"epoch":0.25,"loss":4.0,"learning_rate":0.001,"grad_norm":0.5,"tokens":100,"seconds":0.5,)"
          R"("tokens_per_second":200.0,"peak_memory_mb":12.0})");
    CHECK(history.lines().find(R"("loss":null)") != std::string::npos);

    json kept = json::object();
    history.on_save(directory.path(), kept);
    MetricsHistory resumed(3);
    JsonReader reader(json::object(), "");
    resumed.on_resume(directory.path(), reader);
    CHECK(resumed.lines() == history.lines());
    CHECK(metrics_csv(resumed) == metrics_csv(history));
    CHECK(resumed.steps()[2].skipped);

    write_file(directory / "metrics.jsonl", "{\"step\": 1, \"eval_loss\": 2, \"epoch\": 1}\n{\"step\": \"two\"}\n");
    CHECK(message_of<FileError>([&] {
              resumed.on_resume(directory.path(), reader);
          }).find("metrics.jsonl: line 2: key 'step': found \"two\"") != std::string::npos);
    CHECK_THROWS_AS(history.follow(directory / "nowhere" / "x"), FileError);
}

TEST_CASE("CSV has a row a step, evaluations in their columns") {
    MetricsHistory history(3);
    play(history);
    CHECK(
        metrics_csv(history) ==
        "step,epoch,loss,learning_rate,grad_norm,tokens,seconds,tokens_per_second,peak_memory_mb,eval_loss,perplexity\n"
        "1,0.25,4.0,0.001,0.5,100,0.5,200.0,12.0,,\n"
        "2,0.0,,,,,,,,2.0,7.38905609893065\n"
        "3,0.75,1.3333333333333333,0.001,0.5,100,0.5,200.0,12.0,,\n"
        "6,1.5,,0.001,0.5,100,0.5,200.0,12.0,2.0,7.38905609893065\n"
        "7,1.75,0.5714285714285714,0.001,0.5,100,0.5,200.0,12.0,,\n");
}

TEST_CASE("event files are byte for byte those of the tensorboard package") {
    CHECK(detail::crc32c("123456789") == 0xE3069283u); // RFC 3720
    std::string bytes = tensorboard_header(1700000000.25);
    bytes += tensorboard_scalar("train/loss", 3.25, 1, 1700000001.5);
    bytes += tensorboard_scalar("train/learning_rate", 2e-4, 1, 1700000002.5);
    bytes += tensorboard_scalar("eval/loss", std::numeric_limits<double>::infinity(), 300, 1700000003.5);
    bytes += tensorboard_scalar("eval/perplexity", 1e30, std::int64_t(1) << 40, 1700000004.5);
    const auto fixture = std::filesystem::path(LOWRANK_TEST_FIXTURES) / "train_tensorboard.tfevents";
    CHECK(bytes == file_bytes(fixture));

    const TemporaryDirectory directory;
    TensorBoardLog log(3);
    log.follow(directory / "runs");
    play(log);
    json kept = json::object();
    log.on_save(directory.path(), kept);
    TensorBoardLog resumed(3);
    JsonReader reader(json::object(), "");
    resumed.on_resume(directory.path(), reader);
    CHECK(resumed.bytes() == log.bytes());
    CHECK(count(log.bytes(), "train/loss") == 4);
    CHECK(count(log.bytes(), "eval/perplexity") == 2);
    const auto live = *std::filesystem::directory_iterator(directory / "runs");
    CHECK(live.path().filename().string().find("tfevents") != std::string::npos);
    CHECK(file_bytes(live.path()) == log.bytes());
}

TEST_CASE("charts have round scales, and survive what training may give") {
    using Scale = detail::ChartScale;
    const auto scale = [](double low, double high) { return Scale::around(low, high); };
    CHECK(scale(0.13, 0.98).low == doctest::Approx(0));
    CHECK(scale(0.13, 0.98).high == doctest::Approx(1));
    CHECK(scale(0.13, 0.98).step == doctest::Approx(0.2));
    CHECK(scale(-3, 40).step == doctest::Approx(10));
    CHECK(scale(5, 5).low < 5);
    CHECK(scale(0, 0).high == doctest::Approx(1));
    CHECK(scale(1, 0).high == 1); // nothing to show

    const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
    const std::string gaps = svg_line_chart("a<b", "step", {{"x&y", {{1, 2}, {2, nan}, {3, 1}, {4, infinity}}}});
    CHECK(gaps.find("a&lt;b") != std::string::npos);
    CHECK(gaps.find("x&amp;y 2 at 1") != std::string::npos);
    CHECK(count(gaps, "<circle") == 2);
    for (const auto& points :
         {std::vector<std::pair<double, double>>{}, {{1, nan}}, {{1, 1}}, {{1, 1e300}, {2, -1e300}}}) {
        const std::string chart = svg_line_chart("t", "x", {{"s", points}});
        CHECK(chart.find("nan") == std::string::npos);
        CHECK(chart.find("inf") == std::string::npos);
        CHECK(count(chart, "<path class=\"grid\"") < 40);
    }
    std::vector<std::pair<double, double>> many;
    for (int i = 0; i < 100000; ++i) {
        many.emplace_back(i, std::sin(i * 1e-3));
    }
    CHECK(svg_line_chart("t", "x", {{"s", many}}).size() < 30000);
}

TEST_CASE("the page holds everything, loads nothing, and escapes what it shows") {
    MetricsHistory history(1);
    play(history);
    ReportContent content;
    content.title = "</title><script>alert(1)</script>";
    content.summary = {{"steps & more", "7"}};
    content.settings = {{"data", "\"<img src=x onerror=alert(1)>\""}};
    content.samples = {{"<p>prompt", "'expected'", "before \x1b[31m", "after\n\ttwo"}};
    const std::string page = html_report(content, history);
    CHECK(count(page, "<svg") == 4);
    CHECK(count(page, "</svg>") == 4);
    CHECK(count(page, "<script") == 0);
    CHECK(count(page, "<img") == 0);
    CHECK(count(page, "http") == 0);
    CHECK(count(page, "url(") == 0);
    CHECK(count(page, "\x1b") == 0);
    for (const char* part :
         {"&lt;/title&gt;&lt;script&gt;", "steps &amp; more", "&quot;&lt;img src=x onerror=alert(1)&gt;&quot;",
          "&lt;p&gt;prompt", "&#39;expected&#39;", "after\n\ttwo", "evaluation"}) {
        CAPTURE(part);
        CHECK(page.find(part) != std::string::npos);
    }
    CHECK(html_report({}, MetricsHistory(1)).find("</html>") != std::string::npos);
}
