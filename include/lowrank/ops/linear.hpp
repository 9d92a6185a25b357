// The fused linear operation: y = activation((x·Wᵀ + Σ scale·t·Bᵀ) ⊙ column_scale + bias) + residual.
#pragma once

#include <cstdint>
#include <vector>

#include "lowrank/autograd/record.hpp"
#include "lowrank/backend/cpu/columns.hpp"
#include "lowrank/backend/cpu/elementwise.hpp"
#include "lowrank/backend/cpu/matmul.hpp"
#include "lowrank/math/apply.hpp"
#include "lowrank/math/unary.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/ops/views.hpp"

namespace lowrank {

/// What a linear does to its product before it stores it. Undefined tensors leave a part out.
template <class T, DeviceTag D>
struct Epilogue {
    Tensor<compute_t<T>, D> bias;         ///< [out]
    Tensor<compute_t<T>, D> column_scale; ///< [out]; DoRA's magnitude over norm
    Activation activation = Activation::none;
    Tensor<T, D> residual; ///< of the result's shape, added last
};

/// A low-rank part of a linear: scale·t·Bᵀ is added to x·Wᵀ. For LoRA t = dropout(x)·Aᵀ; where A is given, the linear
/// forms t = x·Aᵀ itself, and the gradient of x, du·W + dt·A, is one product.
template <class T, DeviceTag D>
struct LowRankTerm {
    Tensor<T, D> t;            ///< [..., r], rows as those of x; undefined where A is given
    Tensor<compute_t<T>, D> b; ///< [out, r]
    double scale = 1;
    Tensor<compute_t<T>, D> a = {}; ///< [r, in], or undefined
};

namespace detail {

template <class T, DeviceTag D>
void check_linear(const Tensor<T, D>& x, const WeightSlot<compute_t<T>, D>& weight, const Epilogue<T, D>& epilogue,
                  const std::vector<LowRankTerm<T, D>>& terms, const Shape& result) {
    if (x.rank() < 1 || x.size(-1) != weight.in()) {
        throw ShapeError(concat("linear: the input's last dimension is not the weight's: input ", x.shape(),
                                ", weight [out, in] = [", weight.out(), ", ", weight.in(), "]"));
    }
    const auto check_columns = [&](const auto& columns, const char* what) {
        if (columns.defined() && columns.shape() != Shape{weight.out()}) {
            throw ShapeError(
                concat("linear: ", what, ": found shape ", columns.shape(), ", expected [", weight.out(), "]"));
        }
    };
    check_columns(epilogue.bias, "bias");
    check_columns(epilogue.column_scale, "column scale");
    if (epilogue.residual.defined() && epilogue.residual.shape() != result) {
        throw ShapeError(concat("linear: residual: found shape ", epilogue.residual.shape(), ", expected ", result));
    }
    for (const LowRankTerm<T, D>& term : terms) {
        const bool has_b = term.b.rank() == 2 && term.b.size(0) == weight.out();
        if (term.a.defined()) {
            if (!has_b || term.t.defined() || term.a.shape() != Shape{term.b.size(1), weight.in()}) {
                throw ShapeError(concat("linear: low-rank term: A ", term.a.shape(), " and B ", term.b.shape(),
                                        term.t.defined() ? " with t given too" : "", " do not fit [out, in] = [",
                                        weight.out(), ", ", weight.in(), "]"));
            }
        } else if (!has_b || term.t.rank() < 1 || term.t.size(-1) != term.b.size(1) ||
                   term.t.numel() * weight.in() != x.numel() * term.b.size(1)) {
            throw ShapeError(concat("linear: low-rank term: t ", term.t.shape(), " and B ", term.b.shape(),
                                    " do not fit input ", x.shape(), " and ", weight.out(), " outputs"));
        }
    }
}

/// body(formula) for an activation, or `otherwise` where there is none.
template <class T, DeviceTag D, class Body>
Tensor<T, D> with_formula(Activation activation, const Tensor<T, D>& otherwise, const Body& body) {
    switch (activation) {
    case Activation::none: break;
    case Activation::relu: return body(math::Relu{});
    case Activation::gelu_tanh: return body(math::GeluTanh{});
    case Activation::gelu_erf: return body(math::GeluErf{});
    }
    return otherwise;
}

/// The gradient of an activation: dy ⊙ f'(z). ReLU's reads its result's sign, which is z's.
template <class T, DeviceTag D>
Tensor<T, D> through_activation(Activation activation, const Tensor<T, D>& z, const Tensor<T, D>& dy) {
    return with_formula(activation, dy, [&](const auto& op) { return unary_gradient(op, dy, z); });
}

/// The activation of z, as the epilogue computes it.
template <class T, DeviceTag D>
Tensor<T, D> activated(Activation activation, const Tensor<T, D>& z) {
    return with_formula(activation, z, [&](const auto& op) { return apply_unary(op, z); });
}

/// Σ of segments, without an epilogue, as a new tensor of the given shape ([m, n] when flattened).
template <class Out, class T, DeviceTag D>
Tensor<Out, D> product(std::int64_t m, std::int64_t n, const std::vector<MatmulSegment<T, D>>& segments,
                       const Shape& shape) {
    Tensor<Out, D> out = Tensor<Out, D>::empty(shape);
    matmul(D{}, m, n, std::span<const MatmulSegment<T, D>>(segments), out.mutable_data(), MatmulEpilogue<T, Out>{});
    return out;
}

/// Hands Σ of segments on as the gradient of an input: added to what that has already, or as a new tensor.
template <class T, DeviceTag D>
void add_product(const Edge<T, D>& edge, std::int64_t m, std::int64_t n,
                 const std::vector<MatmulSegment<T, D>>& segments, const Shape& shape) {
    if (Tensor<T, D>* sum = edge.gradient_so_far()) {
        MatmulEpilogue<T> epilogue;
        epilogue.accumulate = true;
        matmul(D{}, m, n, std::span<const MatmulSegment<T, D>>(segments), sum->mutable_data(), epilogue);
    } else {
        edge.add(product<T>(m, n, segments, shape));
    }
}

/// dW = dyᵀ·x for dy [rows, out] and x [rows, in], in the orientation in which W is stored.
template <class T, DeviceTag D>
Tensor<compute_t<T>, D> weight_gradient(const WeightSlot<compute_t<T>, D>& weight, std::int64_t rows, MatrixView<T> dy,
                                        MatrixView<T> x) {
    using C = compute_t<T>;
    const std::int64_t in = weight.in(), out = weight.out();
    return weight.orientation() == Orientation::out_in
               ? product<C, T, D>(out, in, {{dy.transposed(), {x}, rows}}, {out, in})
               : product<C, T, D>(in, out, {{x.transposed(), {dy}, rows}}, {in, out});
}

/// What the gradients of a low-rank term need, t [rows, r] and B [out, r] with s, and A [r, in] where the term has it:
/// dB = s·duᵀ·t, dt = s·du·B, dA = dtᵀ·x, and dt·A for x.
template <class T, DeviceTag D>
struct SavedTerm {
    using C = compute_t<T>;
    Edge<T, D> et;
    Edge<C, D> ea, eb;
    bool reaches_x;
    Saved<T, D> t;
    Saved<C, D> a, b;
    Shape t_shape;
    std::int64_t r;
    C scale;

    SavedTerm(const LowRankTerm<T, D>& term, bool x_is_wanted)
        : et(edge(term.t)),
          ea(edge(term.a)),
          eb(edge(term.b)),
          reaches_x(term.a.defined() && x_is_wanted),
          t(save_if(eb, term.t)),
          a(save_if(reaches_x, term.a)),
          b(save_if(et || ea || reaches_x, term.b)),
          t_shape(term.t.shape()),
          r(term.b.size(1)),
          scale(static_cast<C>(term.scale)) {}

    bool is_wanted() const { return et || ea || eb; }

    /// The long rows of du are read as they lie.
    void add_db(std::int64_t rows, std::int64_t out, MatrixView<T> du) const {
        if (eb) {
            const Tensor<T, D> kept = t.get();
            const MatrixView<T> kept_view = matrix(kept.data(), r);
            eb.add(transpose(product<C, T, D>(r, out, {{kept_view.transposed(), {du}, rows}}, {r, out}) * scale));
        }
    }
    /// Adds what t's and A's are, and returns dt; an undefined tensor where nothing needs it.
    Tensor<T, D> add_dt(std::int64_t rows, std::int64_t out, MatrixView<T> du, std::int64_t in,
                        const Saved<T, D>& x) const {
        if (!(et || ea || reaches_x)) {
            return {};
        }
        const Tensor<C, D> kept_b = b.get();
        const MatrixOperand<T, D> right(matrix(kept_b.data(), r));
        const Tensor<T, D> dt = product<T, T, D>(rows, r, {{du, right, out, scale}}, t_shape);
        if (et) {
            et.add(dt);
        }
        if (ea) {
            const Tensor<T, D> kept_x = x.get();
            const MatrixView<T> x_view = matrix(kept_x.data(), in);
            ea.add(product<C, T, D>(r, in, {{matrix(dt.data(), r).transposed(), {x_view}, rows}}, {r, in}));
        }
        return dt;
    }
};

} // namespace detail

/// y [..., out] for x [..., in]. A frozen weight gets no gradient and nothing is saved for it: forward and backward
/// cost 4·tokens·out·in operations, not 6. The low-rank factors are further rows of the inner dimension of one product.
/// Hu et al., "LoRA", 2021, equation 3. Throws ShapeError where shapes do not fit.
template <class T, DeviceTag D>
Tensor<T, D> linear(const Tensor<T, D>& input, const WeightSlot<compute_t<T>, D>& weight, Epilogue<T, D> epilogue = {},
                    std::vector<LowRankTerm<T, D>> terms = {}) {
    using C = compute_t<T>;
    using Segment = MatmulSegment<T, D>;
    Shape shape = input.shape();
    if (shape.rank() > 0) {
        shape[shape.rank() - 1] = weight.out();
    }
    detail::check_linear(input, weight, epilogue, terms, shape);
    const std::int64_t in = weight.in(), out = weight.out(), rows = in > 0 ? input.numel() / in : numel(shape) / out;
    const Tensor<T, D> x = contiguous(input);
    const Tensor<T, D> residual = contiguous(epilogue.residual);
    epilogue.bias = contiguous(epilogue.bias);
    epilogue.column_scale = contiguous(epilogue.column_scale);

    const Edge ex = edge(x), er = edge(residual);
    const Edge eb = edge(epilogue.bias), es = edge(epilogue.column_scale), ew = edge(weight.values());
    bool product_wanted = ex || ew;
    std::vector<Segment> segments{{matrix(x.data(), in), MatrixOperand<T, D>(weight, false), in}};
    std::vector<detail::SavedTerm<T, D>> saved_terms;
    bool x_wanted = bool(ew);
    for (LowRankTerm<T, D>& term : terms) {
        term.b = contiguous(term.b);
        term.a = contiguous(term.a);
        const std::int64_t r = term.b.size(1);
        if (term.a.defined()) {
            Shape t_shape = x.shape();
            t_shape[t_shape.rank() - 1] = r;
            const MatrixOperand<T, D> a(matrix(term.a.data(), in).transposed());
            term.t = detail::product<T, T, D>(rows, r, {{matrix(x.data(), in), a, in}}, t_shape);
        }
        term.t = contiguous(term.t);
        segments.push_back({matrix(term.t.data(), r), MatrixOperand<T, D>(matrix(term.b.data(), r).transposed()), r,
                            static_cast<C>(term.scale)});
        const auto& saved = saved_terms.emplace_back(term, bool(ex));
        product_wanted = product_wanted || saved.is_wanted();
        x_wanted = x_wanted || saved.ea;
    }
    const bool wanted = product_wanted || er || eb || es;

    Tensor<T, D> y = Tensor<T, D>::empty(shape), unscaled, pre_activation;
    MatmulEpilogue<T> e;
    e.bias = epilogue.bias.defined() ? epilogue.bias.data() : nullptr;
    e.column_scale = epilogue.column_scale.defined() ? epilogue.column_scale.data() : nullptr;
    e.activation = epilogue.activation;
    e.residual = residual.defined() ? residual.data() : nullptr;
    if (es) {
        unscaled = Tensor<T, D>::empty(shape);
        e.unscaled = unscaled.mutable_data();
    }
    if (epilogue.activation != Activation::none && (product_wanted || eb || es)) {
        pre_activation = Tensor<T, D>::empty(shape);
        e.pre_activation = pre_activation.mutable_data();
    }
    matmul(D{}, rows, out, std::span<const Segment>(segments), y.mutable_data(), e);

    const auto sz = save(pre_activation);
    const Tensor<T, D> result =
        record(y, wanted,
               [=, activation = epilogue.activation, sw = save_if(ex, weight.values()), sx = save_if(x_wanted, x),
                su = save(unscaled), sg = save_if(product_wanted, epilogue.column_scale),
                terms = std::move(saved_terms), x_shape = x.shape()](const Tensor<T, D>& upstream) {
                   const Tensor<T, D> dy = contiguous(upstream);
                   if (er) {
                       er.add(dy);
                   }
                   if (!(product_wanted || eb || es)) {
                       return;
                   }
                   const Tensor<T, D> dz = detail::through_activation(activation, sz.get(), dy);
                   if (eb) {
                       Tensor<C, D> db = Tensor<C, D>::empty({out});
                       sum_rows(D{}, rows, out, dz.data(), db.mutable_data());
                       eb.add(db);
                   }
                   if (es) {
                       Tensor<C, D> ds = Tensor<C, D>::empty({out});
                       dot_rows(D{}, rows, out, dz.data(), su.get().data(), ds.mutable_data());
                       es.add(ds);
                   }
                   if (!product_wanted) {
                       return;
                   }
                   Tensor<T, D> du = dz;
                   if (sg.get().defined()) {
                       du = Tensor<T, D>::empty(dz.shape());
                       scale_columns(D{}, rows, out, dz.data(), sg.get().data(), du.mutable_data());
                   }
                   const MatrixView<T> du_view = matrix(du.data(), out);
                   std::vector<Segment> dx{{du_view, MatrixOperand<T, D>(weight, true), out}}; // du·W + Σ dt·A
                   std::vector<Tensor<T, D>> dts;
                   std::vector<Tensor<C, D>> as;
                   for (const detail::SavedTerm<T, D>& term : terms) {
                       term.add_db(rows, out, du_view);
                       const Tensor<T, D> dt = term.add_dt(rows, out, du_view, in, sx);
                       if (term.reaches_x) {
                           dts.push_back(dt);
                           as.push_back(term.a.get());
                           dx.push_back(
                               {matrix(dt.data(), term.r), MatrixOperand<T, D>(matrix(as.back().data(), in)), term.r});
                       }
                   }
                   if (ew) {
                       const Tensor<T, D> kept = sx.get();
                       ew.add(detail::weight_gradient(weight, rows, du_view, matrix(kept.data(), in)));
                   }
                   if (ex) {
                       sw.get();
                       detail::add_product<T, D>(ex, rows, in, dx, x_shape);
                   }
               });
    if (pre_activation.defined() && !residual.defined()) {
        made_again_by(result,
                      [sz, activation = epilogue.activation] { return detail::activated(activation, sz.get()); });
    }
    return result;
}

/// What an epilogue does after the bias, to a sum y that no single linear computes: its activation and its residual.
template <class T, DeviceTag D>
Tensor<T, D> apply_rest(Tensor<T, D> y, const Epilogue<T, D>& epilogue) {
    switch (epilogue.activation) {
    case Activation::none: break;
    case Activation::relu: y = relu(y); break;
    case Activation::gelu_tanh: y = gelu(y, GeluKind::tanh); break;
    case Activation::gelu_erf: y = gelu(y, GeluKind::erf); break;
    }
    return epilogue.residual.defined() ? y + epilogue.residual : y;
}

} // namespace lowrank
