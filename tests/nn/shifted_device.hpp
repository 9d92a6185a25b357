// A device of the tests' own: its memory lies where the host cannot reach it, and its kernels are those of the host.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "lowrank/backend/cpu/attention.hpp"
#include "lowrank/backend/cpu/batched_matmul.hpp"
#include "lowrank/backend/cpu/columns.hpp"
#include "lowrank/backend/cpu/cross_entropy.hpp"
#include "lowrank/backend/cpu/dropout.hpp"
#include "lowrank/backend/cpu/elementwise.hpp"
#include "lowrank/backend/cpu/embedding.hpp"
#include "lowrank/backend/cpu/extremes.hpp"
#include "lowrank/backend/cpu/layer_norm.hpp"
#include "lowrank/backend/cpu/lines.hpp"
#include "lowrank/backend/cpu/log_sum_exp.hpp"
#include "lowrank/backend/cpu/optimizer.hpp"
#include "lowrank/backend/cpu/reduce.hpp"
#include "lowrank/backend/cpu/rms_norm.hpp"
#include "lowrank/backend/cpu/rotary.hpp"
#include "lowrank/backend/cpu/softmax.hpp"

namespace lowrank::testing {

/// Its addresses are the host's plus 2^55, where no process has memory (x86-64 and aarch64): a read or a write by the
/// host ends the program.
struct ShiftedDevice {
    static constexpr std::uintptr_t shift = std::uintptr_t(1) << 55;

    /// The host's address of the device's. Throws where a pointer of the host is given for one of the device.
    template <class T>
    static T* host(T* pointer) {
        const auto address = reinterpret_cast<std::uintptr_t>(pointer);
        if (pointer != nullptr && address < shift) {
            throw std::logic_error("a pointer of the host was given to the device");
        }
        return pointer == nullptr ? nullptr : reinterpret_cast<T*>(address - shift);
    }

    static constexpr const char* name() { return "shifted"; }
    static void* allocate(std::size_t bytes) {
        return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(Cpu::allocate(bytes)) + shift);
    }
    static void deallocate(void* p, std::size_t bytes) noexcept { Cpu::deallocate(host(p), bytes); }
    static void copy(void* to, const void* from, std::size_t bytes) { Cpu::copy(host(to), host(from), bytes); }
    static void copy_from_host(void* to, const void* from, std::size_t bytes) { Cpu::copy(host(to), from, bytes); }
    static void copy_to_host(void* to, const void* from, std::size_t bytes) { Cpu::copy(to, host(from), bytes); }
    static void zero(void* p, std::size_t bytes) { Cpu::zero(host(p), bytes); }
};

static_assert(DeviceTag<ShiftedDevice>);

} // namespace lowrank::testing

namespace lowrank {

/// A weight of the device: one of the host, of any storage.
template <>
class Weight<testing::ShiftedDevice> : public WeightInfo {
  public:
    explicit Weight(const std::shared_ptr<const Weight<Cpu>>& host)
        : WeightInfo(host->out(), host->in(), host->orientation(), host->storage()),
          host_(host) {}

    const Weight<Cpu>& host() const { return *host_; }
    std::size_t bytes() const override { return host_->bytes(); }
    std::vector<double> row_norms_squared() const { return host_->row_norms_squared(); }
    std::vector<double> column_norms_squared() const { return host_->column_norms_squared(); }

    template <class T>
    Tensor<T, testing::ShiftedDevice> dense_copy() const {
        return Tensor<T, testing::ShiftedDevice>::from(host_->template dense_copy<T>().to_vector(), stored_shape());
    }

  private:
    std::shared_ptr<const Weight<Cpu>> host_;
};

template <class S>
class DenseWeight<S, testing::ShiftedDevice> final : public Weight<testing::ShiftedDevice> {
  public:
    DenseWeight(const Tensor<S, testing::ShiftedDevice>& values, Orientation orientation)
        : Weight<testing::ShiftedDevice>(std::make_shared<DenseWeight<S, Cpu>>(
              Tensor<S, Cpu>::from(values.to_vector(), values.shape()), orientation)) {}
};

} // namespace lowrank

namespace lowrank::testing {

/// What the host's kernels get for an argument of the device's: pointers moved back, and what holds pointers likewise.
template <class T>
const T& on_host(const T& value) {
    return value;
}
template <class T>
T* on_host(T* pointer) {
    return ShiftedDevice::host(pointer);
}
inline const Weight<Cpu>& on_host(const Weight<ShiftedDevice>& weight) {
    return weight.host();
}
template <class T>
MatrixView<T> on_host(const MatrixView<T>& view) {
    return {on_host(view.data), view.row_stride, view.column_stride};
}
template <class T>
MatmulSegment<T, Cpu> on_host(const MatmulSegment<T, ShiftedDevice>& segment) {
    MatmulSegment<T, Cpu> moved{on_host(segment.a), {}, segment.k, segment.scale};
    moved.b.values = on_host(segment.b.values);
    moved.b.parameters = on_host(segment.b.parameters);
    moved.b.weight = segment.b.weight != nullptr ? &segment.b.weight->host() : nullptr;
    moved.b.transposed = segment.b.transposed;
    return moved;
}
template <class T, class Out>
MatmulEpilogue<T, Out> on_host(MatmulEpilogue<T, Out> epilogue) {
    epilogue.column_scale = on_host(epilogue.column_scale);
    epilogue.bias = on_host(epilogue.bias);
    epilogue.residual = on_host(epilogue.residual);
    epilogue.unscaled = on_host(epilogue.unscaled);
    epilogue.pre_activation = on_host(epilogue.pre_activation);
    return epilogue;
}

template <class T, class Out>
void matmul(ShiftedDevice, std::int64_t m, std::int64_t n, std::span<const MatmulSegment<T, ShiftedDevice>> segments,
            Out* out, const MatmulEpilogue<T, Out>& epilogue) {
    std::vector<MatmulSegment<T, Cpu>> moved;
    for (const MatmulSegment<T, ShiftedDevice>& segment : segments) {
        moved.push_back(on_host(segment));
    }
    lowrank::matmul(Cpu{}, m, n, std::span<const MatmulSegment<T, Cpu>>(moved), on_host(out), on_host(epilogue));
}

#define LOWRANK_FORWARD(kernel)                                                                                        \
    template <class... Arguments>                                                                                      \
    void kernel(ShiftedDevice, const Arguments&... arguments) {                                                        \
        lowrank::kernel(Cpu{}, on_host(arguments)...);                                                                 \
    }
LOWRANK_FORWARD(adamw_8bit_step)
LOWRANK_FORWARD(adamw_step)
LOWRANK_FORWARD(add_strided)
LOWRANK_FORWARD(attention_backward)
LOWRANK_FORWARD(attention_forward)
LOWRANK_FORWARD(batched_matmul)
LOWRANK_FORWARD(copy_strided)
LOWRANK_FORWARD(cross_entropy_backward)
LOWRANK_FORWARD(cross_entropy_rows)
LOWRANK_FORWARD(cumulative_sum)
LOWRANK_FORWARD(dot_rows)
LOWRANK_FORWARD(dropout_elements)
LOWRANK_FORWARD(elementwise)
LOWRANK_FORWARD(embedding_backward)
LOWRANK_FORWARD(embedding_rows)
LOWRANK_FORWARD(extreme_index)
LOWRANK_FORWARD(first_outside)
LOWRANK_FORWARD(gather_lines)
LOWRANK_FORWARD(gather_rows)
LOWRANK_FORWARD(layer_norm_backward)
LOWRANK_FORWARD(layer_norm_forward)
LOWRANK_FORWARD(layer_norm_weight_backward)
LOWRANK_FORWARD(log_sum_exp_backward)
LOWRANK_FORWARD(log_sum_exp_rows)
LOWRANK_FORWARD(rms_norm_backward)
LOWRANK_FORWARD(rms_norm_forward)
LOWRANK_FORWARD(rms_norm_weight_backward)
LOWRANK_FORWARD(rotary_angles)
LOWRANK_FORWARD(rotary_rows)
LOWRANK_FORWARD(scale_by)
LOWRANK_FORWARD(scale_columns)
LOWRANK_FORWARD(scatter_lines)
LOWRANK_FORWARD(scatter_rows)
LOWRANK_FORWARD(scatter_strided)
LOWRANK_FORWARD(softmax_gradient_rows)
LOWRANK_FORWARD(softmax_rows)
LOWRANK_FORWARD(squared_sum)
LOWRANK_FORWARD(sum_losses)
LOWRANK_FORWARD(sum_rows)
LOWRANK_FORWARD(sum_to_shape)
#undef LOWRANK_FORWARD

} // namespace lowrank::testing
