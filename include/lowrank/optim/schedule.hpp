// Learning-rate schedules: pure functions of the step.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <string_view>
#include <utility>

#include "lowrank/core/error.hpp"

namespace lowrank {

/// The shape of a schedule. Except for `constant`, all rise linearly from 0 during the warmup; then linear falls in a
/// straight line and cosine in half a wave to 0 at the last step.
enum class ScheduleKind : std::uint8_t { constant, constant_with_warmup, linear, cosine };

namespace detail {
inline constexpr std::array<std::pair<std::string_view, ScheduleKind>, 4> schedule_names{{
    {"constant", ScheduleKind::constant},
    {"constant_with_warmup", ScheduleKind::constant_with_warmup},
    {"linear", ScheduleKind::linear},
    {"cosine", ScheduleKind::cosine},
}};
} // namespace detail

/// The schedule that Transformers calls `name` (--lr-scheduler-type). Throws OptionError for an unknown one.
inline ScheduleKind schedule_from_name(std::string_view name) {
    std::string allowed;
    for (const auto& [known, kind] : detail::schedule_names) {
        if (known == name) {
            return kind;
        }
        allowed += concat(allowed.empty() ? "" : ", ", known);
    }
    throw OptionError(concat("learning-rate schedule: found '", name, "', expected one of: ", allowed));
}

/// The name of a schedule, as `schedule_from_name` reads it.
inline std::string_view name_of(ScheduleKind kind) {
    return detail::schedule_names[static_cast<std::size_t>(kind)].first;
}

/// Steps of warmup, by the rule of Transformers: `warmup_steps` when positive, else the ratio of all steps, rounded up.
/// Throws OptionError when the number is negative or the ratio outside 0 … 1.
inline std::int64_t warmup_step_count(std::int64_t total_steps, std::int64_t warmup_steps, double warmup_ratio) {
    if (warmup_steps < 0) {
        throw OptionError(concat("warmup steps: found ", warmup_steps, ", expected 0 or more"));
    }
    if (!(warmup_ratio >= 0 && warmup_ratio <= 1)) {
        throw OptionError(concat("warmup ratio: found ", warmup_ratio, ", expected 0 to 1"));
    }
    return warmup_steps > 0 ? warmup_steps
                            : static_cast<std::int64_t>(std::ceil(static_cast<double>(total_steps) * warmup_ratio));
}

/// The factor of the learning rate at a step, equal to transformers.get_scheduler's. Steps count updates of the
/// optimizer from 0: the first update uses factor(0), which is 0 when there is a warmup.
struct Schedule {
    ScheduleKind kind = ScheduleKind::constant;
    std::int64_t warmup_steps = 0;
    std::int64_t total_steps = 0; ///< warmup included; linear and cosine alone look at it

    double factor(std::int64_t step) const {
        if (kind == ScheduleKind::constant) {
            return 1;
        }
        if (step < warmup_steps) {
            return static_cast<double>(step) / static_cast<double>(warmup_steps);
        }
        const auto falling = static_cast<double>(std::max<std::int64_t>(1, total_steps - warmup_steps));
        switch (kind) {
        case ScheduleKind::linear: return std::max(0.0, static_cast<double>(total_steps - step) / falling);
        case ScheduleKind::cosine: {
            const double progress = static_cast<double>(step - warmup_steps) / falling;
            return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * progress)));
        }
        default: return 1;
        }
    }
};

} // namespace lowrank
