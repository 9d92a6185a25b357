// StopStrings: lets a growing text through up to the first stop string, and nothing that may become one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"

namespace lowrank {

/// Takes a text piece by piece and returns as much of it as is certain to stand before the first stop string.
class StopStrings {
  public:
    /// Throws OptionError for an empty stop string.
    explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
        for (const std::string& stop : stops_) {
            if (stop.empty()) {
                throw OptionError("stop: found an empty text, expected one at which to stop");
            }
        }
    }

    /// Takes the next piece. Once a stop string has occurred, all text is swallowed.
    std::string push(std::string_view text) {
        if (stopped_) {
            return {};
        }
        held_ += text;
        std::size_t end = std::string::npos, longest = 0; // the first stop string; what may be the beginning of one
        for (const std::string& stop : stops_) {
            end = std::min(end, held_.find(stop));
            for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
                if (held_.ends_with(std::string_view(stop).substr(0, n))) {
                    longest = n;
                }
            }
        }
        stopped_ = end != std::string::npos;
        std::string sure = held_.substr(0, stopped_ ? end : held_.size() - longest);
        held_.erase(0, stopped_ ? std::string::npos : sure.size());
        return sure;
    }

    /// Ends the text: returns what was held back.
    std::string finish() { return std::exchange(held_, {}); }

    /// Whether a stop string has occurred.
    bool stopped() const { return stopped_; }

  private:
    std::vector<std::string> stops_;
    std::string held_;
    bool stopped_ = false;
};

} // namespace lowrank
