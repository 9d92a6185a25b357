#include "samples.hpp"

#include <algorithm>

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

} // namespace examples
