// Counter-based random numbers: Philox 4x32-10, whose n-th value is a pure function of seed and n.
// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace lowrank {

using PhiloxBlock = std::array<std::uint32_t, 4>;

/// Four random words for a 128-bit counter and a 64-bit key.
constexpr PhiloxBlock philox(PhiloxBlock counter, std::uint64_t key) {
    auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t(0xD2511F53u) * counter[0];
        const std::uint64_t b = std::uint64_t(0xCD9E8D57u) * counter[2];
        counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(b),
                   static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(a)};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return counter;
}

/// The four words number 4·`block` … 4·`block`+3 of stream `stream` under `seed`.
constexpr PhiloxBlock random_block(std::uint64_t seed, std::uint32_t stream, std::uint64_t block) {
    return philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), stream, 0}, seed);
}

/// A random word as a float in [0, 1): its upper 24 bits.
constexpr float uniform_from(std::uint32_t word) {
    return static_cast<float>(word >> 8) * 0x1p-24f;
}

/// A sequence of random numbers for initializers and samplers on the host. Copyable; two with the same seed and
/// stream give the same numbers. `position()` and `seek()` save and restore it.
class Rng {
  public:
    explicit Rng(std::uint64_t seed, std::uint32_t stream = 0) : seed_(seed), stream_(stream) {}

    /// 32 random bits.
    std::uint32_t next() {
        if (position_ % 4 == 0 || !filled_) {
            block_ = random_block(seed_, stream_, position_ / 4);
            filled_ = true;
        }
        return block_[position_++ % 4];
    }

    /// Uniform in [0, 1) with 53 random bits.
    double uniform() {
        const std::uint64_t high = next() >> 5, low = next() >> 6;
        return static_cast<double>((high << 26) | low) * 0x1p-53;
    }

    /// Uniform in [low, high).
    double uniform(double low, double high) { return low + (high - low) * uniform(); }

    /// Normal with mean 0 and standard deviation 1 (Box–Muller, one of the pair).
    double normal() {
        const double u = 1.0 - uniform(); // in (0, 1]
        return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586476925 * uniform());
    }

    /// Uniform in [0, n) without bias (Lemire, "Fast random integer generation in an interval", 2019). n > 0.
    std::uint32_t below(std::uint32_t n) {
        std::uint64_t product = std::uint64_t(next()) * n;
        if (static_cast<std::uint32_t>(product) < n) {
            const std::uint32_t threshold = (0u - n) % n;
            while (static_cast<std::uint32_t>(product) < threshold) {
                product = std::uint64_t(next()) * n;
            }
        }
        return static_cast<std::uint32_t>(product >> 32);
    }

    /// How many words were drawn.
    std::uint64_t position() const { return position_; }
    void seek(std::uint64_t position) {
        position_ = position;
        filled_ = false;
    }

  private:
    std::uint64_t seed_;
    std::uint32_t stream_;
    std::uint64_t position_ = 0;
    PhiloxBlock block_{};
    bool filled_ = false;
};

} // namespace lowrank
