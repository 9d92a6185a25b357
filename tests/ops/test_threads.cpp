// Every op in float: value and gradients have the same bits for any number of threads.
#include <doctest/doctest.h>

#include "lowrank/autograd/backward.hpp"
#include "op_list.hpp"

using namespace lowrank;
using namespace lowrank::testing;

namespace {

/// The value of an op and its gradients.
template <class T>
std::vector<Tensor<T>> run(const OpExample<T>& op) {
    std::vector<Tensor<T>> leaves;
    for (const Tensor<T>& x : op.inputs) {
        leaves.push_back(leaf(x));
    }
    const Tensor<T> y = op.f(leaves);
    Gradients gradients;
    backward(y, example_values<T>(y.shape(), 99), gradients);
    std::vector<Tensor<T>> results{detail::clone(y)};
    for (const Tensor<T>& x : leaves) {
        results.push_back(gradients[x]);
    }
    return results;
}

} // namespace

TEST_CASE("every op gives the same bits for any number of threads") {
    const int before = num_threads();
    for (const OpExample<float>& op : op_list<float>(100, 25)) {
        CAPTURE(op.name);
        set_num_threads(1);
        const auto one = run(op);
        for (const int threads : {2, 5}) {
            set_num_threads(threads);
            const auto many = run(op);
            for (std::size_t i = 0; i < one.size(); ++i) {
                CAPTURE(i);
                CHECK(many[i].to_vector() == one[i].to_vector());
            }
        }
    }
    set_num_threads(before);
}
