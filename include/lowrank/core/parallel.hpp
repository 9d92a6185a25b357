// Parallel loops over a pool of threads: the one place where the library starts threads.
// Work is cut by the data and never by the number of threads, so that results do not depend on it.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

namespace lowrank {

namespace detail {

/// A call `body(context, task)` without allocation.
struct TaskFunction {
    void (*call)(const void*, std::int64_t);
    const void* context;
};

class ThreadPool {
  public:
    static ThreadPool& instance() {
        static ThreadPool pool;
        return pool;
    }

    int size() const { return size_; }

    void resize(int threads) {
        std::scoped_lock caller(caller_mutex_);
        stop();
        start(threads);
    }

    /// Runs the tasks 0 … count-1, each once, on all threads, and returns when all have ended.
    /// The first exception of a task is thrown here. A call from inside a task runs on the calling thread alone.
    void run(std::int64_t count, TaskFunction function) {
        if (count <= 1 || size_ <= 1 || inside()) {
            for (std::int64_t task = 0; task < count; ++task) {
                function.call(function.context, task);
            }
            return;
        }
        std::scoped_lock caller(caller_mutex_);
        function_ = function;
        count_ = count;
        next_.store(0, std::memory_order_relaxed);
        running_.store(size_ - 1, std::memory_order_relaxed);
        {
            std::scoped_lock lock(mutex_);
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        work();
        for (int spin = 0; running_.load(std::memory_order_acquire) != 0; ++spin) {
            if (spin > spins) {
                std::this_thread::yield();
            }
        }
        if (error_) {
            std::rethrow_exception(std::exchange(error_, nullptr));
        }
    }

  private:
    static constexpr int spins = 4000;

    ThreadPool() { start(default_size()); }
    ~ThreadPool() { stop(); }

    static bool& inside() {
        thread_local bool flag = false;
        return flag;
    }

    static int default_size() {
        if (const char* text = std::getenv("LOWRANK_NUM_THREADS")) {
            const int threads = std::atoi(text);
            if (threads >= 1 && threads <= 1024) {
                return threads;
            }
        }
#if defined(__linux__)
        cpu_set_t set;
        if (sched_getaffinity(0, sizeof set, &set) == 0) {
            return std::max(1, CPU_COUNT(&set));
        }
#endif
        return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    }

    void start(int threads) {
        size_ = threads;
        stopping_ = false;
        for (int i = 1; i < threads; ++i) {
            threads_.emplace_back([this, seen = generation_.load()]() mutable { loop(seen); });
        }
    }

    void stop() {
        {
            std::scoped_lock lock(mutex_);
            stopping_ = true;
            generation_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        for (std::thread& thread : threads_) {
            thread.join();
        }
        threads_.clear();
    }

    void loop(std::uint64_t seen) {
        while (true) {
            for (int spin = 0; spin < spins && generation_.load(std::memory_order_acquire) == seen; ++spin) {
            }
            if (generation_.load(std::memory_order_acquire) == seen) {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
            }
            seen = generation_.load(std::memory_order_acquire);
            if (stopping_) {
                return;
            }
            work();
            running_.fetch_sub(1, std::memory_order_release);
        }
    }

    void work() {
        inside() = true;
        try {
            for (std::int64_t task; (task = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) {
                function_.call(function_.context, task);
            }
        } catch (...) {
            std::scoped_lock lock(mutex_);
            if (!error_) {
                error_ = std::current_exception();
            }
            next_.store(count_, std::memory_order_relaxed);
        }
        inside() = false;
    }

    std::vector<std::thread> threads_;
    int size_ = 1;
    std::mutex caller_mutex_, mutex_;
    std::condition_variable wake_;
    std::atomic<std::uint64_t> generation_{0};
    std::atomic<bool> stopping_{false};
    std::atomic<std::int64_t> next_{0};
    std::atomic<int> running_{0};
    std::int64_t count_ = 0;
    TaskFunction function_{};
    std::exception_ptr error_;
};

} // namespace detail

/// The number of threads of parallel loops. At first: LOWRANK_NUM_THREADS, or the CPUs this process may use.
inline int num_threads() {
    return detail::ThreadPool::instance().size();
}

/// Sets the number of threads of parallel loops. Throws OptionError outside 1 … 1024.
inline void set_num_threads(int threads) {
    if (threads < 1 || threads > 1024) {
        throw OptionError(concat("number of threads: found ", threads, ", expected 1 to 1024"));
    }
    detail::ThreadPool::instance().resize(threads);
}

/// Calls `body(task)` for every task in [0, count), in any order and at the same time.
template <class Body>
void parallel_for(std::int64_t count, const Body& body) {
    detail::ThreadPool::instance().run(
        count, {[](const void* context, std::int64_t task) { (*static_cast<const Body*>(context))(task); }, &body});
}

/// Cuts [0, count) into pieces of `grain` (the last may be shorter) and calls `body(begin, end)` for each.
/// The pieces depend on `count` and `grain` alone.
template <class Body>
void parallel_chunks(std::int64_t count, std::int64_t grain, const Body& body) {
    parallel_for((count + grain - 1) / grain,
                 [&](std::int64_t piece) { body(piece * grain, std::min(count, (piece + 1) * grain)); });
}

} // namespace lowrank
