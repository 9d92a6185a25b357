// Frozen matrices: the squared norms of rows and of columns, whatever the storage and the orientation.

#include <memory>
#include <vector>

#include "lowrank/ops/cast.hpp"
#include "lowrank/tensor/nf4_weight.hpp"
#include "random_tensor.hpp"
#include "reference.hpp"

using namespace lowrank;
using lowrank::testing::random_tensor;

TEST_CASE("norms of rows and columns are the sums of squares of what the storage holds") {
    Rng rng(1);
    for (const Orientation orientation : {Orientation::out_in, Orientation::in_out}) {
        for (const auto& [out, in] : {std::pair(391, 203), std::pair(5, 1), std::pair(1, 390), std::pair(64, 192)}) {
            CAPTURE(out);
            CAPTURE(in);
            const Shape shape = orientation == Orientation::out_in ? Shape{out, in} : Shape{in, out};
            const Tensor<float> values = random_tensor<float>(shape, rng);
            const auto dense = std::make_shared<DenseWeight<float, Cpu>>(values, orientation);
            std::vector<std::shared_ptr<const Weight<Cpu>>> storages{
                dense, std::make_shared<DenseWeight<bf16, Cpu>>(cast<bf16>(values), orientation)};
            if (out == 64) { // whole blocks
                storages.push_back(Nf4Weight<Cpu>::quantized(*dense, {}));
            }
            for (const auto& weight : storages) {
                CAPTURE(weight->storage());
                const Tensor<double> stored = weight->dense_copy<double>();
                std::vector<double> row_norms(static_cast<std::size_t>(out)),
                    column_norms(static_cast<std::size_t>(in));
                for (std::int64_t o = 0; o < out; ++o) {
                    for (std::int64_t i = 0; i < in; ++i) {
                        const double value =
                            stored.data()[orientation == Orientation::out_in ? o * in + i : i * out + o];
                        row_norms[static_cast<std::size_t>(o)] += value * value;
                        column_norms[static_cast<std::size_t>(i)] += value * value;
                    }
                }
                // Squares of floats are exact in double, and the sums go along the line: the same bits.
                CHECK(weight->row_norms_squared() == row_norms);
                CHECK(weight->column_norms_squared() == column_norms);
            }
        }
    }
}
