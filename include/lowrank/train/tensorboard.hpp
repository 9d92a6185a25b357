// TensorBoard event files: scalars in TFRecords, written without TensorFlow.
#pragma once

#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <unistd.h>

#include "lowrank/io/atomic_file.hpp"
#include "lowrank/io/read_text.hpp"
#include "lowrank/train/callback.hpp"

namespace lowrank {

namespace detail {

/// CRC-32C (Castagnoli, RFC 3720), bit-reversed polynomial 0x82F63B78.
inline std::uint32_t crc32c(std::string_view bytes) {
    static constexpr auto table = [] {
        std::array<std::uint32_t, 256> entries{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t value = i;
            for (int bit = 0; bit < 8; ++bit) {
                value = (value >> 1) ^ ((value & 1) != 0 ? 0x82F63B78u : 0u);
            }
            entries[i] = value;
        }
        return entries;
    }();
    std::uint32_t crc = 0xFFFFFFFFu;
    for (const char c : bytes) {
        crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
    }
    return ~crc;
}

template <class Value>
void append_bytes(std::string& out, Value value) { // little-endian, as the machines that this runs on
    static_assert(std::endian::native == std::endian::little);
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// A record of TensorFlow's TFRecord format: length, its checksum, data, its checksum; the checksums are masked.
inline void append_tfrecord(std::string& out, std::string_view data) {
    const auto append_checksum = [&](std::string_view bytes) {
        const std::uint32_t crc = crc32c(bytes);
        append_bytes(out, ((crc >> 15) | (crc << 17)) + 0xa282ead8u);
    };
    std::string length;
    append_bytes(length, static_cast<std::uint64_t>(data.size()));
    out += length;
    append_checksum(length);
    out += data;
    append_checksum(data);
}

// Protocol buffers: a field is its number and wire type in a varint, then the value.
inline void append_varint(std::string& out, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
        out += static_cast<char>((value & 0x7F) | 0x80);
    }
    out += static_cast<char>(value);
}
inline void append_field(std::string& out, unsigned number, std::string_view bytes) {
    append_varint(out, number << 3 | 2);
    append_varint(out, bytes.size());
    out += bytes;
}
inline void append_field(std::string& out, unsigned number, double value) {
    append_varint(out, number << 3 | 1);
    append_bytes(out, value);
}
inline void append_field(std::string& out, unsigned number, float value) {
    append_varint(out, number << 3 | 5);
    append_bytes(out, value);
}
inline void append_field(std::string& out, unsigned number, std::uint64_t value) {
    append_varint(out, number << 3);
    append_varint(out, value);
}

} // namespace detail

/// The record that an event file begins with. `time` is in Unix seconds.
inline std::string tensorboard_header(double time) {
    std::string event, record;
    detail::append_field(event, 1, time);
    detail::append_field(event, 3, std::string_view("brain.Event:2"));
    detail::append_tfrecord(record, event);
    return record;
}

/// The record of one scalar: an Event with a Summary with a simple_value.
inline std::string tensorboard_scalar(std::string_view tag, double value, std::int64_t step, double time) {
    std::string entry, summary, event, record;
    detail::append_field(entry, 1, tag);
    detail::append_field(entry, 2, static_cast<float>(value));
    detail::append_field(summary, 1, std::string_view(entry));
    detail::append_field(event, 1, time);
    detail::append_field(event, 2, static_cast<std::uint64_t>(step));
    detail::append_field(event, 5, std::string_view(summary));
    detail::append_tfrecord(record, event);
    return record;
}

/// Makes an event file of a run, with the tags that Transformers uses: train/loss, eval/loss and so on; kept across a
/// resume. It can be written while the run goes on, too.
class TensorBoardLog : public TrainerCallback {
  public:
    /// Logs every `every`-th step, the first, the last, and each evaluation.
    explicit TensorBoardLog(std::int64_t every) : every_(every), bytes_(tensorboard_header(now())) {}

    /// Writes to a new file in `directory` as the run goes on; throws FileError where that cannot be made.
    void follow(const std::filesystem::path& directory) {
        std::error_code error;
        std::filesystem::create_directories(directory, error);
        const std::filesystem::path path = directory / name();
        file_.open(path, std::ios::binary | std::ios::trunc);
        if (!file_) {
            throw FileError(concat(path.string(), ": cannot write"));
        }
    }

    void on_train_begin(TrainerState&) override { put(bytes_); }
    void on_step_end(const StepMetrics& m, TrainerState& state) override {
        if (is_logged(m.step, every_, state.max_steps)) {
            add("train/loss", m.loss, m.step);
            add("train/learning_rate", m.learning_rate, m.step);
            add("train/grad_norm", m.grad_norm, m.step);
            add("train/epoch", m.epoch, m.step);
            add("train/tokens_per_second", m.tokens_per_second(), m.step);
        }
    }
    void on_evaluate(const EvaluationMetrics& m, TrainerState&) override {
        add("eval/loss", m.loss, m.step);
        add("eval/perplexity", m.perplexity(), m.step);
    }
    void on_save(const std::filesystem::path& directory, json&) override {
        write_atomically(directory / kept_name, bytes_);
    }
    void on_resume(const std::filesystem::path& directory, JsonReader&) override {
        bytes_ = read_text(directory / kept_name);
    }

    /// The event file so far.
    const std::string& bytes() const { return bytes_; }

    /// A file name that TensorBoard looks for.
    static std::string name() {
        std::array<char, 256> host{};
        ::gethostname(host.data(), host.size() - 1);
        return concat("events.out.tfevents.", static_cast<std::int64_t>(now()), ".", std::string(host.data()), ".",
                      ::getpid());
    }

  private:
    static constexpr const char* kept_name = "tensorboard.records"; // TensorBoard shall not take it for another run

    static double now() {
        return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    }
    void add(std::string_view tag, double value, std::int64_t step) {
        const std::string record = tensorboard_scalar(tag, value, step, now());
        bytes_ += record;
        put(record);
    }
    void put(const std::string& bytes) {
        if (file_.is_open()) {
            file_ << bytes << std::flush;
        }
    }

    std::int64_t every_;
    std::string bytes_;
    std::ofstream file_;
};

} // namespace lowrank
