#include <atomic>
#include <doctest/doctest.h>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "lowrank/core/parallel.hpp"

using namespace lowrank;

namespace {

struct Threads {
    int before = num_threads();
    explicit Threads(int count) { set_num_threads(count); }
    ~Threads() { set_num_threads(before); }
};

} // namespace

TEST_CASE("every task runs exactly once") {
    for (int threads : {1, 2, 7}) {
        const Threads scope(threads);
        CHECK(num_threads() == threads);
        for (std::int64_t count : {0, 1, 2, 1000}) {
            std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
            parallel_for(count, [&](std::int64_t task) { ++seen[static_cast<std::size_t>(task)]; });
            for (const auto& times : seen) {
                REQUIRE(times == 1);
            }
        }
    }
}

TEST_CASE("chunks depend on the data alone") {
    using Pieces = std::set<std::pair<std::int64_t, std::int64_t>>;
    for (int threads : {1, 3}) {
        const Threads scope(threads);
        Pieces pieces;
        std::mutex mutex;
        parallel_chunks(10, 4, [&](std::int64_t begin, std::int64_t end) {
            std::scoped_lock lock(mutex);
            pieces.emplace(begin, end);
        });
        CHECK(pieces == Pieces{{0, 4}, {4, 8}, {8, 10}});
    }
}

TEST_CASE("an exception reaches the caller and the pool goes on") {
    for (int threads : {1, 4}) {
        const Threads scope(threads);
        CHECK_THROWS_AS(parallel_for(100,
                                     [](std::int64_t task) {
                                         if (task == 50) {
                                             throw std::runtime_error("task 50");
                                         }
                                     }),
                        std::runtime_error);
        std::atomic<int> count = 0;
        parallel_for(100, [&](std::int64_t) { ++count; });
        CHECK(count == 100);
    }
}

TEST_CASE("loops nest, and several threads may call") {
    const Threads scope(3);
    std::atomic<int> count = 0;
    parallel_for(10, [&](std::int64_t) { parallel_for(10, [&](std::int64_t) { ++count; }); });
    CHECK(count == 100);
    count = 0;
    {
        std::vector<std::thread> callers;
        for (int i = 0; i < 4; ++i) {
            callers.emplace_back([&] {
                for (int round = 0; round < 200; ++round) {
                    parallel_for(5, [&](std::int64_t) { ++count; });
                }
            });
        }
        for (std::thread& caller : callers) {
            caller.join();
        }
    }
    CHECK(count == 4000);
}

TEST_CASE("the number of threads is checked") {
    CHECK_THROWS_AS(set_num_threads(0), OptionError);
    CHECK_THROWS_AS(set_num_threads(1025), OptionError);
}
