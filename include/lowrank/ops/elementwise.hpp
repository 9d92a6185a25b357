// Elementwise ops: unary and binary drive a formula of math/ (or one of your own) with its gradient; exp, add and the
// like are those formulas by name, and + - * / are operators.
#pragma once

#include "lowrank/backend/cpu/elementwise.hpp"
#include "lowrank/math/affine.hpp"
#include "lowrank/math/apply.hpp"
#include "lowrank/ops/broadcast.hpp"

namespace lowrank {

namespace detail {

/// op.f(x), not recorded.
template <class Op, class T, DeviceTag D>
Tensor<T, D> apply_unary(const Op& op, const Tensor<T, D>& x) {
    Tensor<T, D> y = Tensor<T, D>::empty(x.shape());
    elementwise(D{}, math::Value<Op>{op}, x.shape(), y.mutable_data(), x.data(), x.strides());
    return y;
}

/// dy · op.df(at), not recorded.
template <class Op, class T, DeviceTag D>
Tensor<T, D> unary_gradient(const Op& op, const Tensor<T, D>& dy, const Tensor<T, D>& at) {
    Tensor<T, D> dx = Tensor<T, D>::empty(dy.shape());
    elementwise(D{}, math::Gradient<Op>{op}, dy.shape(), dx.mutable_data(), dy.data(), dy.strides(), at.data(),
                at.strides());
    return dx;
}

} // namespace detail

/// y = op.f(x), element by element, with the gradient dy · op.df(…). T is float, double or bf16, any layout.
///
/// An op of your own is such a struct; see math/unary.hpp for more. Its functions are templates over the value type
/// (double, float, a SIMD vector), marked LOWRANK_HD, without branches on values (use select); it may have members.
///
///   struct Softplus {
///       static constexpr const char* name = "softplus";
///       static constexpr math::Saves saves = math::Saves::input; // df gets x
///       template <class V> LOWRANK_HD static V f(V x) { return log(V(1) + exp(x)); }
///       template <class V> LOWRANK_HD static V df(V x) { return V(1) / (V(1) + exp(-x)); }
///   };
///   Tensor<float> y = unary(Softplus{}, x);
template <class Op, class T, DeviceTag D>
Tensor<T, D> unary(const Op& op, const Tensor<T, D>& x) {
    using math::Saves;
    const Tensor<T, D> y = detail::apply_unary(op, x);
    const auto ex = edge(x);
    const auto saved = save_if(ex && Op::saves != Saves::nothing, Op::saves == Saves::input ? x : y);
    const Tensor<T, D> result = record(y, bool(ex), [op, ex, saved](const Tensor<T, D>& dy) {
        if (Op::saves == Saves::nothing && op.df(1.0) == 1.0) {
            ex.add(dy);
            return;
        }
        // A derivative that reads nothing is computed at any value: dy is at hand.
        ex.add(detail::unary_gradient(op, dy, Op::saves == Saves::nothing ? dy : saved.get()));
    });
    if constexpr (Op::saves == Saves::input) {
        made_again_by(result, [op, saved] { return detail::apply_unary(op, saved.get()); });
    }
    return result;
}

namespace detail {

/// The gradient of one argument of a binary op: dy · formula(a, b), summed to the argument's shape. An argument that
/// the formula does not read was not saved.
template <class Formula, class T, DeviceTag D>
Tensor<T, D> binary_gradient(const Formula& formula, math::Reads reads, const Tensor<T, D>& dy,
                             const Saved<T, D>& saved_a, const Saved<T, D>& saved_b, const Shape& shape) {
    if (!reads.a && !reads.b && formula(1.0, 1.0, 1.0) == 1.0) {
        return sum_to(dy, shape);
    }
    const Tensor<T, D> a = reads.a ? broadcast_to(saved_a.get(), dy.shape()) : dy;
    const Tensor<T, D> b = reads.b ? broadcast_to(saved_b.get(), dy.shape()) : dy;
    Tensor<T, D> each = Tensor<T, D>::empty(dy.shape());
    elementwise(D{}, formula, dy.shape(), each.mutable_data(), dy.data(), dy.strides(), a.data(), a.strides(), b.data(),
                b.strides());
    return sum_to(each, shape);
}

} // namespace detail

/// y = op.f(a, b), element by element, with NumPy's broadcasting; the gradients dy · op.da(a, b) and dy · op.db(a, b)
/// are summed to the arguments' shapes. See math/binary.hpp for what `op` provides. Throws ShapeError.
template <class Op, class T, DeviceTag D>
Tensor<T, D> binary(const Op& op, const Tensor<T, D>& a, const Tensor<T, D>& b) {
    const Shape shape = broadcast(a.shape(), b.shape(), Op::name);
    Tensor<T, D> y = Tensor<T, D>::empty(shape);
    elementwise(D{}, math::Value<Op>{op}, shape, y.mutable_data(), a.data(),
                broadcast_strides(a.shape(), a.strides(), shape), b.data(),
                broadcast_strides(b.shape(), b.strides(), shape));
    const auto ea = edge(a), eb = edge(b);
    const auto saved_a = save_if((ea && Op::da_reads.a) || (eb && Op::db_reads.a), a);
    const auto saved_b = save_if((ea && Op::da_reads.b) || (eb && Op::db_reads.b), b);
    return record(y, ea || eb, [op, ea, eb, saved_a, saved_b, sa = a.shape(), sb = b.shape()](const Tensor<T, D>& dy) {
        if (ea) {
            ea.add(detail::binary_gradient(math::GradientA<Op>{op}, Op::da_reads, dy, saved_a, saved_b, sa));
        }
        if (eb) {
            eb.add(detail::binary_gradient(math::GradientB<Op>{op}, Op::db_reads, dy, saved_a, saved_b, sb));
        }
    });
}

/// e^x
template <class T, DeviceTag D>
Tensor<T, D> exp(const Tensor<T, D>& x) {
    return unary(math::Exp{}, x);
}

/// The natural logarithm.
template <class T, DeviceTag D>
Tensor<T, D> log(const Tensor<T, D>& x) {
    return unary(math::Log{}, x);
}

/// The square root.
template <class T, DeviceTag D>
Tensor<T, D> sqrt(const Tensor<T, D>& x) {
    return unary(math::Sqrt{}, x);
}

/// 1 / √x
template <class T, DeviceTag D>
Tensor<T, D> rsqrt(const Tensor<T, D>& x) {
    return unary(math::Rsqrt{}, x);
}

/// x²
template <class T, DeviceTag D>
Tensor<T, D> square(const Tensor<T, D>& x) {
    return unary(math::Square{}, x);
}

/// |x|; its derivative at 0 is 0.
template <class T, DeviceTag D>
Tensor<T, D> abs(const Tensor<T, D>& x) {
    return unary(math::Abs{}, x);
}

/// -x
template <class T, DeviceTag D>
Tensor<T, D> neg(const Tensor<T, D>& x) {
    return unary(math::Neg{}, x);
}

/// The hyperbolic tangent.
template <class T, DeviceTag D>
Tensor<T, D> tanh(const Tensor<T, D>& x) {
    return unary(math::Tanh{}, x);
}

/// 1 / (1 + e^-x)
template <class T, DeviceTag D>
Tensor<T, D> sigmoid(const Tensor<T, D>& x) {
    return unary(math::Sigmoid{}, x);
}

/// max(x, 0); its derivative at 0 is 0.
template <class T, DeviceTag D>
Tensor<T, D> relu(const Tensor<T, D>& x) {
    return unary(math::Relu{}, x);
}

/// x / (1 + e^-x)
template <class T, DeviceTag D>
Tensor<T, D> silu(const Tensor<T, D>& x) {
    return unary(math::SiLU{}, x);
}

/// The two GELUs: x·Φ(x) by the error function (PyTorch's approximate="none"), and its approximation by tanh
/// (approximate="tanh", Transformers' gelu_new), which GPT-2 uses.
enum class GeluKind { erf, tanh };

/// GELU (Hendrycks and Gimpel, 2016).
template <class T, DeviceTag D>
Tensor<T, D> gelu(const Tensor<T, D>& x, GeluKind kind = GeluKind::erf) {
    return kind == GeluKind::erf ? unary(math::GeluErf{}, x) : unary(math::GeluTanh{}, x);
}

/// a + b, with broadcasting. A number is not rounded to T first.
template <class T, DeviceTag D>
Tensor<T, D> add(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    return binary(math::Add{}, a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> add(const Tensor<T, D>& a, double b) {
    return unary(math::Affine{1.0, b}, a);
}

/// a - b, with broadcasting.
template <class T, DeviceTag D>
Tensor<T, D> sub(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    return binary(math::Sub{}, a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> sub(const Tensor<T, D>& a, double b) {
    return unary(math::Affine{1.0, -b}, a);
}
template <class T, DeviceTag D>
Tensor<T, D> sub(double a, const Tensor<T, D>& b) {
    return unary(math::Affine{-1.0, a}, b);
}

/// a · b, with broadcasting.
template <class T, DeviceTag D>
Tensor<T, D> mul(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    return binary(math::Mul{}, a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> mul(const Tensor<T, D>& a, double b) {
    return unary(math::Affine{b, 0.0}, a);
}

/// a / b, with broadcasting.
template <class T, DeviceTag D>
Tensor<T, D> div(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    return binary(math::Div{}, a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> div(const Tensor<T, D>& a, double b) {
    return unary(math::DivideBy{b}, a);
}
template <class T, DeviceTag D>
Tensor<T, D> div(double a, const Tensor<T, D>& b) {
    return unary(math::Divide{a}, b);
}

/// a to the power b, with broadcasting: NaN for a negative a and a b that is no integer. A number of ±0.5, ±1, ±2 or ±3
/// takes a tenth of the time of others.
template <class T, DeviceTag D>
Tensor<T, D> pow(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    return binary(math::Pow{}, a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> pow(const Tensor<T, D>& a, double exponent) {
    return unary(math::Power{exponent}, a);
}

template <class T, DeviceTag D>
Tensor<T, D> operator+(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    return add(a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> operator+(const Tensor<T, D>& a, double b) {
    return add(a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> operator+(double a, const Tensor<T, D>& b) {
    return add(b, a);
}
template <class T, DeviceTag D>
Tensor<T, D> operator-(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    return sub(a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> operator-(const Tensor<T, D>& a, double b) {
    return sub(a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> operator-(double a, const Tensor<T, D>& b) {
    return sub(a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> operator-(const Tensor<T, D>& x) {
    return neg(x);
}
template <class T, DeviceTag D>
Tensor<T, D> operator*(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    return mul(a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> operator*(const Tensor<T, D>& a, double b) {
    return mul(a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> operator*(double a, const Tensor<T, D>& b) {
    return mul(b, a);
}
template <class T, DeviceTag D>
Tensor<T, D> operator/(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    return div(a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> operator/(const Tensor<T, D>& a, double b) {
    return div(a, b);
}
template <class T, DeviceTag D>
Tensor<T, D> operator/(double a, const Tensor<T, D>& b) {
    return div(a, b);
}

} // namespace lowrank
