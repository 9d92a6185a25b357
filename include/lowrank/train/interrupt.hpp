// Ctrl-C: the first asks for an orderly end after the running step, the second ends the process.
#pragma once

#include <csignal>

namespace lowrank {

/// While it lives, SIGINT and SIGTERM set a flag instead of ending the process; a second one ends it as usual.
class InterruptGuard {
  public:
    InterruptGuard() {
        flag() = 0;
        before_int_ = std::signal(SIGINT, handle);
        before_term_ = std::signal(SIGTERM, handle);
    }
    InterruptGuard(const InterruptGuard&) = delete;
    InterruptGuard& operator=(const InterruptGuard&) = delete;
    ~InterruptGuard() {
        std::signal(SIGINT, before_int_);
        std::signal(SIGTERM, before_term_);
    }

    /// Whether an end was asked for.
    bool requested() const { return flag() != 0; }

  private:
    static volatile std::sig_atomic_t& flag() {
        static volatile std::sig_atomic_t value = 0;
        return value;
    }
    static void handle(int signal) {
        flag() = 1;
        std::signal(signal, SIG_DFL);
    }

    void (*before_int_)(int);
    void (*before_term_)(int);
};

} // namespace lowrank
