#include <algorithm>
#include <cstdlib>
#include <doctest/doctest.h>
#include <string>

#include "lowrank/simd/dispatch.hpp"
#include "lowrank/simd/memory.hpp"
#include "lowrank/simd/vec.hpp"
#include "simd/isas.hpp"

using namespace lowrank;
using namespace lowrank::simd;

namespace {

struct WidthKernel {
    template <int Width>
    static LOWRANK_INLINE int run() {
        return Width;
    }
};

// Computes the rounding error of a² as fma does: 0 where the product is rounded first.
struct SquareErrorKernel {
    template <int Width>
    static LOWRANK_INLINE void run(const float* a, float* error) {
        using V = Vec<float, Width>;
        const V x = load<V>(a);
        store(fma(x, x, V(-1.0f - 0x1p-11f)), error);
    }
};

std::string message_of(const char* name, Isa best) {
    try {
        isa_from_name(name, best);
    } catch (const OptionError& error) {
        return error.what();
    }
    return "no error";
}

} // namespace

TEST_CASE("the environment variable lowers the instruction set") {
    setenv("LOWRANK_ISA", "generic", 1); // before the first use in this program
    CHECK(active_isa() == Isa::generic);
    CHECK(run_for_isa<WidthKernel>() == 4);
    setenv("LOWRANK_ISA", "nonsense", 1);
    CHECK(active_isa() == Isa::generic); // read once
}

TEST_CASE("names of instruction sets") {
    for (Isa isa : {Isa::generic, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx_bf16}) {
        CHECK(isa_from_name(name_of(isa), Isa::amx_bf16) == isa);
    }
    CHECK(message_of("sse9", Isa::avx2) ==
          "LOWRANK_ISA: 'sse9' is not an instruction set of this CPU, which has: generic, avx2");
    CHECK(message_of("avx512", Isa::avx2) ==
          "LOWRANK_ISA: 'avx512' is not an instruction set of this CPU, which has: generic, avx2");
}

TEST_CASE("a kernel runs with the width of its instruction set, and with its fused multiply-add") {
    for (Isa isa : all_isas()) {
        CAPTURE(name_of(isa));
        CHECK(run_on_isa<WidthKernel>(isa) == width_of(isa));
        float a[16], error[16] = {};
        volatile float value = 1.0f + 0x1p-12f; // volatile: constants would be folded, unfused
        std::fill_n(a, 16, value);
        run_on_isa<SquareErrorKernel>(isa, a, error);
#if defined(__OPTIMIZE__) && defined(__x86_64__)
        const bool fused = isa >= Isa::avx2;
        CHECK((error[0] == 0x1p-24f) == (fused || error[0] != 0));
        CHECK((!fused || error[width_of(isa) - 1] == 0x1p-24f));
#endif
    }
}
