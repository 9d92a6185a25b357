// tensors: a tour of tensors: how they are made, seen in other ways, combined, reduced and indexed.

#include <cstdio>
#include <string>

#include <lowrank/lowrank.hpp>

using namespace lowrank;

namespace {

/// "[[1, 2], [3, 4]]", of any layout.
template <class T>
std::string text(const Tensor<T>& x) {
    if (x.rank() == 0) {
        char number[32];
        std::snprintf(number, sizeof number, "%.6g", static_cast<double>(x.item()));
        return number;
    }
    std::string out = "[";
    for (std::int64_t i = 0; i < x.size(0); ++i) {
        out += (i ? ", " : "") + text(select(x, 0, i));
    }
    return out + "]";
}

template <class T>
void show(const char* what, const Tensor<T>& x) {
    std::printf("%-34s %-10s %s\n", what, x.shape().str().c_str(), text(x).c_str());
}

} // namespace

int main() {
    // Values in row-major order and a shape. The type of the elements is a part of the tensor's type.
    const auto x = Tensor<float>::from({1, 2, 3, 4, 5, 6}, {2, 3});
    show("x", x);

    std::printf("\nViews: the same memory with another shape and other strides\n");
    const auto t = transpose(x);
    show("transpose(x)", t);
    std::printf("strides %s became %s, %s\n", x.strides().str().c_str(), t.strides().str().c_str(),
                t.data() == x.data() ? "nothing was copied" : "copied");
    show("slice(x, 1, 1, 3)", slice(x, 1, 1, 3)); // columns 1 and 2
    show("select(x, 0, 1)", select(x, 0, 1));
    show("reshape(x, {3, -1})", reshape(x, {3, -1}));
    show("permute(x as [1, 2, 3], {2, 0, 1})", permute(unsqueeze(x, 0), {2, 0, 1}));

    std::printf("\nOps give new tensors; shapes broadcast as in NumPy\n");
    const auto column = Tensor<float>::from({10, 20}, {2, 1}), row = Tensor<float>::from({1, 0, -1}, {3});
    show("x + column", x + column);
    show("x * row - 0.5", x * row - 0.5);
    show("matmul(x, transpose(x))", matmul(x, t));
    show("batches: [2, 1, 3] by [3, 1]", matmul(unsqueeze(x, 1), unsqueeze(row, 1)));

    std::printf("\nReductions over all elements, or over some dimensions\n");
    show("sum(x)", sum(x));
    show("mean(x, {0})", mean(x, {0}));
    show("sum(x, {1}, true)", sum(x, {1}, true)); // the dimension stays, with extent 1
    show("max(x, 1).values", max(x, 1).values);
    show("softmax(x)", softmax(x));
    const auto centered = x - mean(x, {1}, true);
    show("rows of mean 0 and variance 1", centered * rsqrt(mean(square(centered), {1}, true)));

    std::printf("\nIndices are tensors, too, and masks are tensors of ones and zeros\n");
    show("index_select(x, 1, [2, 0])", index_select(x, 1, Tensor<std::int32_t>::from({2, 0}, {2})));
    show("argmax(x * row, 1)", argmax(x * row, 1));
    show("greater(x, 2.5)", greater(x, 2.5));
    show("where(greater(x, 2.5), x, -x)", where(greater(x, 2.5), x, -x));
    show("concat({x, column}, 1)", concat({x, column}, 1));

    std::printf("\nTypes: bf16 has 8 bits of precision, but sums are made in float\n");
    show("1/3 as bf16", cast<float>(cast<bf16>(Tensor<double>::scalar(1.0 / 3))));
    show("a thousand ones in bf16", cast<float>(sum(Tensor<bf16>::full({1000}, bf16(1)))));

    std::printf("\nMistakes are exceptions that say what and where\n");
    try {
        matmul(x, x);
    } catch (const ShapeError& error) {
        std::printf("%s\n", error.what());
    }
}
