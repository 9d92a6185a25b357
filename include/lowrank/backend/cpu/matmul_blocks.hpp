// How a product on the host is cut: the register tile for a type and an instruction set, and the blocks around it.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>

#include "lowrank/backend/cpu/bf16_pairs.hpp"
#include "lowrank/backend/cpu/matmul_amx.hpp"
#include "lowrank/backend/cpu/matmul_tile.hpp"
#include "lowrank/core/parallel.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/simd/dispatch.hpp"

namespace lowrank::detail {

/// The register tile that a product is made of, and what its factors are packed as.
struct MatmulTile {
    int rows;
    std::int64_t columns; // of a panel of B
    Packed kind = Packed::values;
    bool is_amx = false;

    /// The tile of values of C.
    template <class C>
    static MatmulTile of_values(simd::Isa isa) {
        const int width = simd::width_of(isa);
        return {.rows = tile_rows_of(width), .columns = tile_vectors_of(width) * tile_lanes<C>(width)};
    }

    /// The fastest tile for products of T.
    template <class T>
    static MatmulTile of(simd::Isa isa) {
        using C = compute_t<T>;
        MatmulTile tile = of_values<C>(isa);
        tile.is_amx = std::same_as<C, float> && isa == simd::Isa::amx_bf16;
        if (tile.is_amx) {
            tile.rows = amx_tile;
            tile.columns = amx_tile;
        }
        if (std::same_as<T, bf16> && (tile.is_amx || (isa == simd::Isa::avx512_bf16 && simd::has_pairs<16>))) {
            tile.kind = Packed::bf16_pairs;
        } else if (tile.is_amx) {
            tile.kind = Packed::bf16x3;
        }
        return tile;
    }

    /// Packed numbers that a step of k takes, for a row or a column.
    std::int64_t parts() const { return kind == Packed::bf16x3 ? 3 : 1; }

    /// Steps of k that so many numbers make, and back: pairs come in whole chunks.
    std::int64_t steps_of(std::int64_t k) const {
        return kind == Packed::values ? k : (k + 2 * pair_chunk - 1) / (2 * pair_chunk) * pair_chunk;
    }
    std::int64_t numbers_of(std::int64_t steps) const { return kind == Packed::values ? steps : 2 * steps; }
};

/// How a product is cut into blocks. In elements and steps of k; all row counts are multiples of the tile's rows. The
/// order in which an element's products are summed does not depend on it.
struct MatmulBlocks {
    int tile_rows;
    std::int64_t panel;           // columns of a panel of B
    std::int64_t group;           // columns of a task
    std::int64_t rows = 0;        // rows of a task
    std::int64_t k = 0;           // steps of k between visits of the sums
    std::int64_t cached_rows = 0; // rows of it whose sums stay in the cache over all of k
    bool keeps_b = false;         // B stays packed, over all of k, for the rows behind these

    /// For a product of m rows, n columns and k steps. Each task packs its panels, so a task has many rows; but there
    /// are to be three tasks for a thread, or where multiplying is so fast that packing counts more, just enough.
    static MatmulBlocks of(const MatmulTile& tile, std::int64_t m, std::int64_t n, std::int64_t k) {
        constexpr std::int64_t most_rows = 1152;
        const Limits most = limits_of(tile);
        const std::int64_t least_strips = pieces(108, tile.rows), most_cached_strips = pieces(most.rows, tile.rows);
        MatmulBlocks blocks{.tile_rows = tile.rows, .panel = tile.columns, .group = most.panels * tile.columns};
        const std::int64_t strips = pieces(m, blocks.tile_rows), groups = pieces(n, blocks.group);
        const std::int64_t wanted = tile.is_amx ? enough_for_all_threads(groups) : pieces(3 * num_threads(), groups);
        const std::int64_t row_blocks = std::max(pieces(m, most_rows), std::min(wanted, strips / least_strips));
        blocks.rows = pieces(strips, row_blocks) * blocks.tile_rows;
        blocks.cached_rows = std::min(blocks.rows, most_cached_strips * blocks.tile_rows);
        blocks.keeps_b = blocks.rows > blocks.cached_rows;
        blocks.k = pieces(k, std::max<std::int64_t>(1, pieces(k, most.k)));
        if (tile.kind != Packed::values) {
            blocks.k = pieces(blocks.k, pair_chunk) * pair_chunk;
        }
        return blocks;
    }

    /// How many pieces of at most `most` cover `whole`.
    static constexpr std::int64_t pieces(std::int64_t whole, std::int64_t most) { return (whole + most - 1) / most; }

  private:
    struct Limits {
        std::int64_t k, rows, panels; // steps; rows whose sums are cached; panels of a group
    };
    /// A panel and a strip fill half of the first-level cache, and a group's panels and sums lie in the second one. Of
    /// three parts, a strip has so much to multiply that panels may come from there too.
    static constexpr Limits limits_of(const MatmulTile& tile) {
        return tile.kind == Packed::bf16x3 ? Limits{400, 256, 6}
               : tile.is_amx               ? Limits{144, 128, 12}
                                           : Limits{272, 225, 4};
    }

    /// The fewest times so many tasks that keep all threads busy for seven eighths of the time.
    static std::int64_t enough_for_all_threads(std::int64_t tasks) {
        const std::int64_t threads = num_threads();
        std::int64_t times = 1;
        while (8 * times * tasks < 7 * pieces(times * tasks, threads) * threads) {
            ++times;
        }
        return times;
    }
};

} // namespace lowrank::detail
