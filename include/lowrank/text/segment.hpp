// A piece of a row's text, with what the model has to do with it.
#pragma once

#include <string>

namespace lowrank {

/// A piece of a row's text. Pieces are tokenized separately and joined.
struct Segment {
    std::string text{};
    bool supervised = false; ///< the model learns to write it
    bool ends = false;       ///< the end-of-sequence token follows it
    bool literal = false;    ///< special tokens that stand in it, such as "<|im_end|>", are ordinary characters
};

} // namespace lowrank
