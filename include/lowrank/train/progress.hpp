// Progress for people: one live line on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <unistd.h>

#include "lowrank/train/callback.hpp"

namespace lowrank {

/// Shows steps, loss, learning rate, speed and time left on standard error.
class Progress : public TrainerCallback {
  public:
    /// Plain lines appear every `every` steps; the live line at every step.
    Progress(std::int64_t total_steps, std::int64_t every)
        : total_(total_steps),
          every_(every),
          live_(isatty(STDERR_FILENO) != 0),
          start_(Clock::now()) {}
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress() override { finish(); } // an error's message begins on a line of its own

    void on_train_begin(TrainerState&) override { start_ = Clock::now(); }
    void on_step_end(const StepMetrics& m, TrainerState&) override { show(m); }
    void on_evaluate(const EvaluationMetrics&, TrainerState&) override { finish(); }
    void on_train_end(TrainerState&) override { finish(); }

    void show(const StepMetrics& m) {
        ++shown_;
        tokens_ += m.tokens;
        if (!live_ && !is_logged(m.step, every_, total_)) {
            return;
        }
        const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
        const double left = elapsed / static_cast<double>(shown_) * static_cast<double>(total_ - m.step);
        char text[160];
        std::snprintf(text, sizeof text, "step %lld/%lld  loss %.4f  lr %.2e  grad %.3f  %.0f tokens/s  %s left%s",
                      static_cast<long long>(m.step), static_cast<long long>(total_), m.loss, m.learning_rate,
                      m.grad_norm, elapsed > 0 ? static_cast<double>(tokens_) / elapsed : 0.0, duration(left).c_str(),
                      m.skipped ? "  (skipped: not finite)" : "");
        std::fprintf(stderr, live_ ? "\r\033[K%s" : "%s\n", text);
        std::fflush(stderr);
        open_line_ = live_;
    }

    /// Ends the live line, so that other output begins on a fresh one.
    void finish() {
        if (open_line_) {
            std::fputc('\n', stderr);
            open_line_ = false;
        }
    }

  private:
    using Clock = std::chrono::steady_clock;

    static std::string duration(double seconds) {
        const auto total = static_cast<long long>(seconds + 0.5);
        char text[32];
        if (total >= 3600) {
            std::snprintf(text, sizeof text, "%lldh%02lldm", total / 3600, total / 60 % 60);
        } else {
            std::snprintf(text, sizeof text, "%lldm%02llds", total / 60, total % 60);
        }
        return text;
    }

    std::int64_t total_, every_, shown_ = 0, tokens_ = 0;
    bool live_, open_line_ = false;
    Clock::time_point start_;
};

} // namespace lowrank
