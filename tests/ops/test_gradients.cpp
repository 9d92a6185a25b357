// Every op's gradient against central differences, in double.
#include <doctest/doctest.h>

#include "lowrank/autograd/gradient_check.hpp"
#include "op_list.hpp"
#include "reference.hpp"

using namespace lowrank;
using namespace lowrank::testing;

TEST_CASE("gradients of every op equal central differences") {
    for (const OpExample<double>& op : op_list<double>()) {
        const auto report = detail::check_gradients<Cpu>(op.f, GradientCheckOptions{}, op.inputs);
        CHECK_MESSAGE(report.ok, op.name, ": ", report.str());
    }
}

TEST_CASE("every op takes inputs that are not contiguous") {
    for (const OpExample<double>& op : op_list<double>()) {
        std::vector<Tensor<double>> views;
        for (const Tensor<double>& x : op.inputs) {
            if (x.rank() < 2) {
                views.push_back(select(contiguous(broadcast_to(unsqueeze(x, 1), {x.numel(), 3})), 1, 1));
            } else {
                views.push_back(transpose(contiguous(transpose(x, 0, -1)), 0, -1));
            }
        }
        CAPTURE(op.name);
        CHECK(relative_error(op.f(views), op.f(op.inputs)) < 1e-14); // sums may take another order
    }
}
