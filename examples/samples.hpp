// Rows of data as samples: what a model is asked, what is expected, and what it answers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common.hpp"
#include "data_options.hpp"
#include "lowrank/generate/generate.hpp"

namespace examples {

/// A row taken apart: what comes before its first supervised token (of a row that is supervised whole: its first
/// quarter), and the supervised tokens that follow it, without the end of the sequence.
class Sample {
  public:
    Sample(const DataReader& reader, const lowrank::Example& row) : reader_(reader), ids_(row.input_ids) {
        const auto supervised = [&](std::size_t i) { return row.labels[i] != lowrank::ignored_label; };
        while (length_ < ids_.size() && !supervised(length_)) {
            ++length_;
        }
        if (length_ == 1 && supervised(0)) {
            length_ = std::max<std::size_t>(1, ids_.size() / 4);
        }
        std::size_t end = length_;
        while (end < ids_.size() && supervised(end)) {
            ++end;
        }
        if (end > length_ && reader.eos_id() == ids_[end - 1]) {
            --end;
        }
        answer_ = ids_.subspan(length_, end - length_);
    }

    std::span<const std::int32_t> prompt_ids() const { return ids_.first(length_); }
    std::string prompt() const { return reader_.text(prompt_ids()); }
    std::string answer() const { return reader_.text(answer_); }

    /// What the model writes after the prompt, taking the most likely token each time.
    std::string continuation(const Model& model, std::int64_t most_tokens) const {
        lowrank::SamplerOptions greedy;
        greedy.greedy = true;
        lowrank::Sampler sampler(greedy);
        std::vector<std::int32_t> ids;
        lowrank::generate(model, prompt_ids(), most_tokens, reader_.eos_id(), sampler, [&](std::int32_t id) {
            ids.push_back(id);
            return true;
        });
        return reader_.text(ids);
    }

  private:
    const DataReader& reader_;
    std::span<const std::int32_t> ids_, answer_;
    std::size_t length_ = 1; ///< of the prompt
};

} // namespace examples
