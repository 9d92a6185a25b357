// autograd: gradients are values, which backward returns or adds to; and how to steer what is recorded.

#include <cstdio>
#include <utility>

#include <lowrank/lowrank.hpp>

using namespace lowrank;

int main() {
    // A leaf is a tensor that gets a gradient. What is computed from it is recorded on the way.
    const auto w = leaf(Tensor<double>::from({1, 2, 3}, {3}));
    const auto x = Tensor<double>::from({4, 5, 6}, {3});
    const auto loss = square(sum(w * x) - 30.0);
    const Gradients gradients = backward(loss);
    std::printf("loss %g, gradient of w: %g %g %g, of x: %s\n", loss.item(), gradients[w].to_vector()[0],
                gradients[w].to_vector()[1], gradients[w].to_vector()[2], gradients.find(x) ? "wanted" : "none");

    // backward(…, into) adds: two micro-batches give the gradient of their sum. zero() keeps the memory.
    Gradients total;
    backward(sum(w * x), total);
    backward(sum(square(w)), total);
    std::printf("d(w·x + w·w)/dw = %g %g %g\n", total[w].to_vector()[0], total[w].to_vector()[1],
                total[w].to_vector()[2]);

    // NoGrad records nothing while it lives; detach() makes a constant of one value: d(w · constant w)/dw = w.
    {
        const NoGrad no_grad;
        std::printf("recorded with NoGrad: %s\n", sum(w * x).node() ? "yes" : "no");
    }
    std::printf("with a detached factor: %g instead of %g\n", backward(sum(w * w.detach()))[w].to_vector()[2],
                backward(sum(w * w))[w].to_vector()[2]);

    // A gradient descent of one's own: the new values are a new leaf.
    auto z = leaf(Tensor<double>::scalar(1));
    const auto f = [](const auto& z) { return square(square(z) - 2.0); }; // smallest at √2
    for (int step = 0; step < 60; ++step) {
        const Gradients g = backward(f(z));
        const NoGrad no_grad;
        z = leaf(z - g[z] * 0.05);
    }
    std::printf("gradient descent found %.6f\n", z.item());

    // checkpoint keeps the inputs of a function and computes it again during backward: memory against time.
    int calls = 0;
    const auto deep = [&](const Tensor<double>& input) {
        ++calls;
        Tensor<double> y = input;
        for (int layer = 0; layer < 4; ++layer) {
            y = tanh(y * w);
        }
        return y;
    };
    const double plain = backward(sum(deep(x)))[w].to_vector()[0];
    const int calls_plain = std::exchange(calls, 0);
    const double again = backward(sum(checkpoint(deep, x)))[w].to_vector()[0];
    std::printf("checkpoint: %s gradient, f ran %d times instead of %d\n", plain == again ? "the same" : "another",
                calls, calls_plain);

    // gradient_check compares backward with central differences. Here it finds the slip in a rule of one's own.
    const auto cube = [](const auto& v) {
        return custom_op(
            v * v * v, [s = save(v)](const auto& dy) { return dy * square(s.get()) * 3.0; }, v);
    };
    const auto wrong = [](const auto& v) {
        return custom_op(
            v * v * v, [s = save(v)](const auto& dy) { return dy * square(s.get()) * 2.0; }, v);
    };
    std::printf("cube: %s\n", gradient_check(cube, x).ok ? "ok" : "wrong");
    std::printf("a slip: %s\n", gradient_check(wrong, x).str().c_str());
}
