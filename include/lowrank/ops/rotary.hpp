// Rotary position embedding (Su et al., "RoFormer", 2021), in the order of LLaMA and GPT-NeoX: halves, not pairs.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/rotary.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// The frequencies theta^(-2i / dimensions), i < dimensions / 2, radians a position, computed in float as Transformers
/// does. `dimensions` is the even number of elements of a head that turn. A model that scales its frequencies changes
/// these numbers. Throws OptionError for an odd or negative number, or a theta that is not positive.
template <DeviceTag D = Cpu>
Tensor<float, D> rotary_frequencies(std::int64_t dimensions, double theta = 10000.0) {
    if (dimensions < 0 || dimensions % 2 != 0 || !(theta > 0)) {
        throw OptionError(concat("rotary_frequencies: found ", dimensions, " dimensions and theta ", theta,
                                 ", expected an even number and theta > 0"));
    }
    std::vector<float> frequencies;
    for (std::int64_t i = 0; i < dimensions; i += 2) {
        const float exponent = static_cast<float>(i) / static_cast<float>(dimensions);
        frequencies.push_back(1.0f / std::pow(static_cast<float>(theta), exponent));
    }
    return Tensor<float, D>::from(frequencies, {dimensions / 2});
}

/// The cosines and sines that rotary() turns activations of type T by, [.., 2 · half] for positions [..] and
/// frequencies [half]: rotary_table<T>(positions, frequencies). One table serves all layers of a forward; packed rows
/// give each token its position in its document. Throws ShapeError for frequencies of another rank.
template <class T, DeviceTag D>
Tensor<compute_t<T>, D> rotary_table(const Tensor<std::int32_t, D>& positions, const Tensor<float, D>& frequencies) {
    if (frequencies.rank() != 1) {
        throw ShapeError(concat("rotary_table: expected frequencies [half], found ", frequencies.shape()));
    }
    const Tensor<std::int32_t, D> at = contiguous(positions);
    Shape shape = positions.shape();
    shape.push_back(2 * frequencies.size(0));
    Tensor<compute_t<T>, D> table = Tensor<compute_t<T>, D>::empty(shape);
    rotary_angles(D{}, at.numel(), frequencies.size(0), at.data(), contiguous(frequencies).data(),
                  table.mutable_data());
    return table;
}

/// Queries or keys x [batch, length, heads, head_dim] with each token turned by its row of the table, [batch, length, 2
/// · half] or [length, 2 · half] for all: elements i and half + i of a head become x[i]·cos - x[half+i]·sin and
/// x[half+i]·cos + x[i]·sin; those from 2 · half on stay. Equals Transformers' apply_rotary_pos_emb. A view whose last
/// dimension is dense is read in place. Throws ShapeError where shapes do not fit.
template <class T, DeviceTag D>
Tensor<T, D> rotary(const Tensor<T, D>& input, const Tensor<compute_t<T>, D>& angles) {
    const bool shared = angles.rank() == 2;
    if (input.rank() != 4 || (!shared && (angles.rank() != 3 || angles.size(0) != input.size(0))) ||
        angles.size(-2) != input.size(1) || angles.size(-1) > input.size(3) || angles.size(-1) % 2 != 0) {
        throw ShapeError(
            concat("rotary: expected x [batch, length, heads, head_dim] and a table [batch, length, at most "
                   "head_dim] or [length, …]: x ",
                   input.shape(), ", table ", angles.shape()));
    }
    const Tensor<T, D> x = input.strides()[3] == 1 ? input : contiguous(input);
    const Tensor<compute_t<T>, D> table = contiguous(angles);
    const auto turn = [](const Tensor<T, D>& from, const Tensor<compute_t<T>, D>& by, int direction) {
        const Shape& shape = from.shape();
        const Strides& strides = from.strides();
        Tensor<T, D> y = Tensor<T, D>::empty(shape);
        const std::int64_t width = by.size(-1), table_stride = by.rank() == 2 ? 0 : by.size(1) * width;
        rotary_rows(D{}, shape[0], shape[1], shape[2], shape[3], width / 2, by.data(), table_stride, direction,
                    from.data(), strides[0], strides[1], strides[2], y.mutable_data());
        return y;
    };
    const Edge<T, D> ex = edge(x);
    return record(turn(x, table, 1), bool(ex), [ex, turn, by = save_if(ex, table)](const Tensor<T, D>& dy) {
        ex.add(turn(contiguous(dy), by.get(), -1));
    });
}

} // namespace lowrank
