// The laws of GPT-2 in double, so that differences are of the mathematics, not of rounding.

#include "gpt2_laws.hpp"

using namespace lowrank::testing;

TEST_CASE("documents packed into a row: the loss and the gradients of separate rows") {
    check_packing<double>(1e-10);
}

TEST_CASE("padded rows together: the loss and the gradients of the rows one by one") {
    check_padding<double>(1e-10);
}

TEST_CASE("checkpointing changes no bit, with dropout") {
    check_checkpointing<double>();
}
