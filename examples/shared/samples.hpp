// Rows of data as samples: what a model is asked, what is expected, and what it answers.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "data_options.hpp"
#include "model.hpp"

namespace examples {

/// A row taken apart: what comes before its first supervised token (of a row that is supervised whole: its first
/// quarter), and the supervised tokens that follow it, without the end of the sequence.
class Sample {
  public:
    Sample(const DataReader& reader, const lowrank::Example& row);

    std::span<const std::int32_t> prompt_ids() const { return ids_.first(length_); }
    std::string prompt() const { return reader_.text(prompt_ids()); }
    std::string answer() const { return reader_.text(answer_); }

    const DataReader& reader() const { return reader_; }

  private:
    const DataReader& reader_;
    std::span<const std::int32_t> ids_, answer_;
    std::size_t length_ = 1; ///< of the prompt
};

/// What the model writes after a sample's prompt, taking the most likely token each time. Defined for the types of
/// model.hpp.
template <class T>
std::string continuation(const lowrank::Gpt2<T>& model, const Sample& sample, std::int64_t most_tokens);

} // namespace examples
