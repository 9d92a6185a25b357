// Which instruction sets this CPU has, which one is in use, and how one kernel is compiled for all of them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "lowrank/core/error.hpp"

// How it works. A kernel is a struct with `template <int Width> static void run(args...)`, where Width is the number of
// floats in a register (4, 8 or 16), written with simd::Vec and marked `[[gnu::always_inline]]` together with all that
// it calls. `run_for_isa<Kernel>(args...)` calls it inside a function that carries a target attribute, so that the one
// text is compiled for each instruction set, without -m flags:
//
//     struct Scale {
//         template <int Width>
//         [[gnu::always_inline]] static inline void run(float* x, std::int64_t n, float factor) {
//             using V = simd::Vec<float, Width>;
//             for (std::int64_t i = 0; i < n; i += Width) {
//                 const std::int64_t count = std::min<std::int64_t>(n - i, Width);
//                 store(simd::load<V>(x + i, count) * V(factor), x + i, count);
//             }
//         }
//     };
//     simd::run_for_isa<Scale>(x, n, factor);
//
// Rules: no lambdas inside a kernel (a lambda does not inherit the target attribute; a functor whose operator() is
// always_inline does the same), and no intrinsics beyond the baseline. A kernel that needs the intrinsics of one
// instruction set is a function of its own that carries one of the LOWRANK_TARGET attributes below.

#if defined(__x86_64__)
#define LOWRANK_TARGET_AVX2 __attribute__((target("avx2,fma")))
#if defined(__clang__) // or clang splits 512-bit vectors where the tuning prefers 256 bits
#define LOWRANK_FULL_VECTORS __attribute__((min_vector_width(512)))
#else
#define LOWRANK_FULL_VECTORS
#endif
#define LOWRANK_TARGET_AVX512                                                                                          \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))) LOWRANK_FULL_VECTORS
#define LOWRANK_TARGET_AMX_BF16 __attribute__((target("amx-tile,amx-bf16")))
#endif

// What the flags of a translation unit change lies in a namespace named after them, so that units compiled with
// different flags link.
#if defined(__AVX512F__)
#define LOWRANK_FLAGS flags_avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define LOWRANK_FLAGS flags_avx2
#else
#define LOWRANK_FLAGS flags_baseline
#endif

namespace lowrank::simd {

/// Instruction sets that kernels are compiled for, each containing those before it. `generic` is the baseline of the
/// compiler's flags: SSE2 on x86-64, NEON on aarch64.
enum class Isa : std::uint8_t { generic, avx2, avx512, avx512_bf16, amx_bf16 };

/// The name of an instruction set, as the environment variable LOWRANK_ISA spells it.
constexpr std::string_view name_of(Isa isa) {
    switch (isa) {
    case Isa::generic: return "generic";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512_bf16: return "avx512_bf16";
    case Isa::amx_bf16: return "amx_bf16";
    }
    return "?";
}

/// Floats in a vector register of an instruction set: the Width that its kernels get.
constexpr int width_of(Isa isa) {
    return isa == Isa::generic ? 4 : isa == Isa::avx2 ? 8 : 16;
}

#if defined(__x86_64__)
namespace detail {

/// Whether this CPU multiplies tiles of bf16 and the system lets this process use their registers, which it grants only
/// on request ("Using XSTATE features in user space applications" in Linux' documentation).
inline bool may_use_amx() {
#if defined(__linux__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned bf16_bit = 1u << 22, tile_bit = 1u << 24; // CPUID leaf 7, EDX
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & bf16_bit) == 0 || (d & tile_bit) == 0) {
        return false;
    }
    constexpr long request_permission = 0x1023, tile_data = 18; // ARCH_REQ_XCOMP_PERM, the tiles' state component
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

} // namespace detail
#endif

/// The best instruction set that this CPU and its operating system support.
inline Isa best_isa() {
#if defined(__x86_64__)
    static const Isa best = [] {
        __builtin_cpu_init();
        if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
            return Isa::generic;
        }
        if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
            !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
            return Isa::avx2;
        }
        if (!__builtin_cpu_supports("avx512bf16")) {
            return Isa::avx512;
        }
        return detail::may_use_amx() ? Isa::amx_bf16 : Isa::avx512_bf16;
    }();
    return best;
#else
    return Isa::generic;
#endif
}

/// The instruction set called `name` (a value of LOWRANK_ISA). Throws OptionError for a name that does not exist and
/// for one above `best`.
inline Isa isa_from_name(std::string_view name, Isa best = best_isa()) {
    std::string allowed;
    for (int i = 0; i <= static_cast<int>(best); ++i) {
        if (name == name_of(Isa(i))) {
            return Isa(i);
        }
        allowed += concat(i == 0 ? "" : ", ", name_of(Isa(i)));
    }
    throw OptionError(concat("LOWRANK_ISA: '", name, "' is not an instruction set of this CPU, which has: ", allowed));
}

/// The instruction set that kernels run with: the best one, or the one that the environment variable LOWRANK_ISA names
/// (read once). Throws OptionError where that is unknown or not supported.
inline Isa active_isa() {
    static const Isa active = [] {
        const char* name = std::getenv("LOWRANK_ISA");
        return name == nullptr || *name == '\0' ? best_isa() : isa_from_name(name);
    }();
    return active;
}

inline namespace LOWRANK_FLAGS {
namespace per_isa {

template <class Kernel, class... Args>
auto run_generic(Args&&... args) {
    return Kernel::template run<4>(args...);
}
#if defined(__x86_64__)
template <class Kernel, class... Args>
LOWRANK_TARGET_AVX2 auto run_avx2(Args&&... args) {
    return Kernel::template run<8>(args...);
}
template <class Kernel, class... Args>
LOWRANK_TARGET_AVX512 auto run_avx512(Args&&... args) {
    return Kernel::template run<16>(args...);
}
#endif

} // namespace per_isa

/// Runs `Kernel::run<Width>(args...)` compiled for `isa`, which must not be above best_isa(), and returns what it
/// returns. What is above Isa::avx512 runs the AVX-512 code and differs in products of bf16 alone.
template <class Kernel, class... Args>
auto run_on_isa([[maybe_unused]] Isa isa, Args&&... args) {
#if defined(__x86_64__)
    if (isa >= Isa::avx512) {
        return per_isa::run_avx512<Kernel>(args...);
    }
    if (isa == Isa::avx2) {
        return per_isa::run_avx2<Kernel>(args...);
    }
#endif
    return per_isa::run_generic<Kernel>(args...);
}

/// Runs `Kernel::run<Width>(args...)` compiled for active_isa(), and returns what it returns.
template <class Kernel, class... Args>
auto run_for_isa(Args&&... args) {
    return run_on_isa<Kernel>(active_isa(), args...);
}

/// The same where active_isa() is known to be Isa::avx512 or above: nothing is compiled for the others.
template <class Kernel, class... Args>
auto run_with_avx512(Args&&... args) {
#if defined(__x86_64__)
    return per_isa::run_avx512<Kernel>(args...);
#else
    return per_isa::run_generic<Kernel>(args...);
#endif
}

} // namespace LOWRANK_FLAGS
} // namespace lowrank::simd
