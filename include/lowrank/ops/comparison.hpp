// Comparison and selection: greater, equal and the like, where, maximum, minimum and clamp.
#pragma once

#include <limits>

#include "lowrank/math/comparison.hpp"
#include "lowrank/ops/elementwise.hpp"

namespace lowrank {

/// Op::f(a, b), element by element, with broadcasting and outside the graph: comparisons have no gradient. They give
/// 1 and 0 in the inputs' type, so that a mask multiplies, adds up and averages as any tensor; where() takes it.
/// Integers are compared after a cast. Throws ShapeError.
template <class Op, class T, DeviceTag D>
Tensor<T, D> compare(const Op& op, const Tensor<T, D>& a, const Tensor<T, D>& b) {
    const Shape shape = broadcast(a.shape(), b.shape(), Op::name);
    Tensor<T, D> y = Tensor<T, D>::empty(shape);
    elementwise(D{}, math::Value<Op>{op}, shape, y.mutable_data(), a.data(),
                broadcast_strides(a.shape(), a.strides(), shape), b.data(),
                broadcast_strides(b.shape(), b.strides(), shape));
    return y;
}
/// The same with a number, rounded to T.
template <class Op, class T, DeviceTag D>
Tensor<T, D> compare(const Op& op, const Tensor<T, D>& a, double b) {
    return compare(op, a, Tensor<T, D>::scalar(convert<T>(b)));
}

/// 1 where a > b, with broadcasting; b may be a number.
template <class T, DeviceTag D, class B>
Tensor<T, D> greater(const Tensor<T, D>& a, const B& b) {
    return compare(math::Greater{}, a, b);
}

/// 1 where a ≥ b.
template <class T, DeviceTag D, class B>
Tensor<T, D> greater_equal(const Tensor<T, D>& a, const B& b) {
    return compare(math::GreaterEqual{}, a, b);
}

/// 1 where a < b.
template <class T, DeviceTag D, class B>
Tensor<T, D> less(const Tensor<T, D>& a, const B& b) {
    return compare(math::Less{}, a, b);
}

/// 1 where a ≤ b.
template <class T, DeviceTag D, class B>
Tensor<T, D> less_equal(const Tensor<T, D>& a, const B& b) {
    return compare(math::LessEqual{}, a, b);
}

/// 1 where a = b.
template <class T, DeviceTag D, class B>
Tensor<T, D> equal(const Tensor<T, D>& a, const B& b) {
    return compare(math::Equal{}, a, b);
}

/// 1 where a ≠ b, which a NaN is to everything.
template <class T, DeviceTag D, class B>
Tensor<T, D> not_equal(const Tensor<T, D>& a, const B& b) {
    return compare(math::NotEqual{}, a, b);
}

/// a where the mask is not 0, b elsewhere, with broadcasting of all three. What is not chosen has a gradient of exactly
/// 0, whatever its value; the mask has none. Throws ShapeError.
template <class T, DeviceTag D>
Tensor<T, D> where(const Tensor<T, D>& mask, const Tensor<T, D>& a, const Tensor<T, D>& b) {
    const auto choose = [](const Shape& shape, const Tensor<T, D>& m, const Tensor<T, D>& x, const Tensor<T, D>& y) {
        Tensor<T, D> chosen = Tensor<T, D>::empty(shape);
        elementwise(D{}, math::Choose{}, shape, chosen.mutable_data(), m.data(),
                    broadcast_strides(m.shape(), m.strides(), shape), x.data(),
                    broadcast_strides(x.shape(), x.strides(), shape), y.data(),
                    broadcast_strides(y.shape(), y.strides(), shape));
        return chosen;
    };
    const Shape shape = broadcast(mask.shape(), broadcast(a.shape(), b.shape(), "where"), "where");
    const Edge<T, D> ea = edge(a), eb = edge(b);
    return record(choose(shape, mask, a, b), ea || eb,
                  [=, kept = save_if(ea || eb, mask), sa = a.shape(), sb = b.shape()](const Tensor<T, D>& dy) {
                      const Tensor<T, D> zero = Tensor<T, D>::zeros({});
                      if (ea) {
                          ea.add(sum_to(choose(dy.shape(), kept.get(), dy, zero), sa));
                      }
                      if (eb) {
                          eb.add(sum_to(choose(dy.shape(), kept.get(), zero, dy), sb));
                      }
                  });
}

/// The larger of a and b, with broadcasting; NaN where either is. Where both are equal, each gets half of the gradient.
template <class T, DeviceTag D>
Tensor<T, D> maximum(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    return binary(math::Maximum{}, a, b);
}

/// The smaller of a and b, as maximum.
template <class T, DeviceTag D>
Tensor<T, D> minimum(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    return binary(math::Minimum{}, a, b);
}

/// x, or the nearer of the two ends where it lies outside low … high; these may be infinite. The gradient is 1
/// between the ends and 0 elsewhere. `high` where low is above it.
template <class T, DeviceTag D>
Tensor<T, D> clamp(const Tensor<T, D>& x, double low, double high = std::numeric_limits<double>::infinity()) {
    return unary(math::Clamp{low, high}, x);
}

} // namespace lowrank
