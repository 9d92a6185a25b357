#include "samples.hpp"

#include <algorithm>
#include <vector>

#include "lowrank/generate/generate.hpp"

namespace examples {

Sample::Sample(const DataReader& reader, const lowrank::Example& row) : reader_(reader), ids_(row.input_ids) {
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

std::string Sample::continuation(const Model& model, std::int64_t most_tokens) const {
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

} // namespace examples
