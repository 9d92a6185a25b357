#include <doctest/doctest.h>

#include "lowrank/autograd/checkpoint.hpp"
#include "lowrank/ops/elementwise.hpp"
#include "lowrank/ops/reduce.hpp"

using namespace lowrank;

namespace {
using X = Tensor<double>;
using V = std::vector<double>;
const X one_two = X::from({1, 2}, {2});
} // namespace

TEST_CASE("gradients of leaves, used once, twice and not at all") {
    const X x = leaf(one_two), y = leaf(X::from({3, 4}, {2})), unused = leaf(one_two);
    const Gradients g = backward(sum(x * y + x * x + y));
    CHECK(g[x].to_vector() == V{5, 8});
    CHECK(g[y].to_vector() == V{2, 3});
    CHECK(g.size() == 2);
    CHECK(g.find(unused) == nullptr);
    CHECK_THROWS_AS(g[unused], AutogradError);
}

TEST_CASE("a leaf is its own identity, a constant has none") {
    const X x = leaf(one_two), same_values = leaf(one_two);
    const Gradients g = backward(sum(x * same_values.detach()));
    CHECK(g.size() == 1);
    CHECK(g.find(same_values) == nullptr);
    CHECK(backward(sum(x))[x].to_vector() == V{1, 1});
    CHECK(backward(reshape(slice(x, 0, 1), {}))[x].to_vector() == V{0, 1});
}

TEST_CASE("an operation that forks and joins runs its rule once") {
    int runs = 0;
    const X x = leaf(one_two);
    const X y = record(x.detach(), true, [&runs, ex = edge(x)](const X& dy) {
        ++runs;
        ex.add(dy);
    });
    CHECK(backward(sum(y * y + y))[x].to_vector() == V{3, 5});
    CHECK(runs == 1);
}

TEST_CASE("gradients accumulate in place") {
    const X x = leaf(one_two);
    Gradients g;
    backward(sum(x * x), g);
    const double* address = g[x].data();
    backward(sum(x * 3), g);
    CHECK(g[x].to_vector() == V{5, 7});
    CHECK(g[x].data() == address);
    g.zero();
    CHECK(g[x].to_vector() == V{0, 0});
    backward(sum(x), g);
    CHECK(g[x].to_vector() == V{1, 1});
    CHECK(g[x].data() == address);
    g.clear();
    CHECK(g.size() == 0);
}

TEST_CASE("a gradient is nobody else's memory") {
    const X x = leaf(one_two), y = leaf(one_two);
    X upstream = X::from({1, 1}, {2});
    Gradients g;
    backward(x + y, upstream, g);
    backward(x + y, upstream, g);
    CHECK(g[x].to_vector() == V{2, 2});
    CHECK(g[y].to_vector() == V{2, 2});
    const X a = x * 2, b = y * 2;
    g.zero();
    backward(a + b + a, upstream, g); // three rules hand on the one upstream gradient
    CHECK(g[x].to_vector() == V{4, 4});
    CHECK(g[y].to_vector() == V{2, 2});
    CHECK(upstream.to_vector() == V{1, 1});
}

TEST_CASE("misuse is named") {
    const X x = leaf(one_two), y = sum(x * x);
    CHECK_THROWS_AS(backward(x), ShapeError);
    CHECK_THROWS_AS(backward(sum(one_two)), AutogradError);
    Gradients g;
    CHECK_THROWS_AS(backward(y, one_two, g), ShapeError);
    CHECK_THROWS_AS(backward(record(y, true, [ex = edge(x)](const X& dy) { ex.add(dy); })), AutogradError);
    backward(y);
    CHECK_THROWS_WITH_AS(backward(y), "backward: this part of the graph was freed by an earlier backward",
                         AutogradError);
}

TEST_CASE("a saved tensor that was overwritten is noticed") {
    X values = X::from({1, 2}, {2});
    const X x = leaf(values), y = sum(x * x);
    values.mutable_data()[0] = 5;
    CHECK_THROWS_AS(backward(y), AutogradError);

    X output;
    const X z = [&] {
        output = exp(x);
        return sum(output);
    }();
    output.mutable_data()[1] = 0;
    CHECK_THROWS_AS(backward(z), AutogradError);

    const X kept = sum(x + x); // saves nothing
    values.mutable_data()[0] = 6;
    CHECK(backward(kept)[x].to_vector() == V{2, 2});
}

TEST_CASE("a backward that failed leaves the graph ready for an error, not for nonsense") {
    const X x = leaf(one_two);
    bool fail = true;
    const X y = record(x.detach(), true, [&fail, ex = edge(x)](const X& dy) {
        if (fail) {
            throw NumericError("on purpose");
        }
        ex.add(dy);
    });
    CHECK_THROWS_AS(backward(sum(y)), NumericError);
    CHECK(Backward::current() == nullptr);
    fail = false;
    CHECK(backward(sum(x * 2))[x].to_vector() == V{2, 2});
}

TEST_CASE("nothing is recorded while NoGrad lives") {
    const X x = leaf(one_two);
    {
        const NoGrad no_grad;
        CHECK_FALSE(is_recording());
        CHECK_FALSE((x * x).node());
        const RecordingScope again(true);
        CHECK((x * x).node());
    }
    CHECK(is_recording());
    CHECK((x * x).node());
}

TEST_CASE("a million operations are freed without recursion, with and without a backward") {
    const X x = leaf(X::scalar(1.0));
    const auto chain = [&] {
        X y = x;
        for (int i = 0; i < 1000000; ++i) {
            y = record(y.detach(), true, [e = edge(y)](const X& dy) { e.add(dy); });
        }
        return y;
    };
    CHECK(backward(chain())[x].item() == 1.0);
    chain();
}

TEST_CASE("a graph of static duration is freed when the program ends") {
    static X kept; // after the thread's own variables: the sanitizers see what it touches then
    kept = square(leaf(X::scalar(2.0)));
    CHECK(kept.item() == 4.0);
}

TEST_CASE("checkpointed equals plain") {
    const X x = leaf(one_two), w = leaf(X::from({0.5, -1}, {2})), frozen = X::from({2, 3}, {2});
    int calls = 0;
    const auto f = [&](const X& v) {
        ++calls;
        return tanh(v * w) * v;
    };
    const Gradients plain = backward(sum(f(f(x)) * w));
    calls = 0;
    const X y = sum(checkpoint(f, checkpoint(f, x)) * w);
    CHECK(calls == 2);
    const Gradients again = backward(y);
    CHECK(calls == 4);
    CHECK(again.size() == 2);
    CHECK(again[x].to_vector() == plain[x].to_vector());
    CHECK(again[w].to_vector() == plain[w].to_vector());

    // A parameter inside gets its gradient although the input wants none.
    CHECK(backward(sum(checkpoint(f, frozen)))[w].to_vector() == backward(sum(f(frozen)))[w].to_vector());
    const auto constant = [](const X& v) { return v * v; };
    CHECK(backward(sum(checkpoint(constant, frozen) + x))[x].to_vector() == V{1, 1});
    const NoGrad no_grad;
    CHECK_FALSE(checkpoint(f, x).node());
}

TEST_CASE("checkpoints nest") {
    const X x = leaf(one_two), w = leaf(X::from({0.5, -1}, {2}));
    const auto inner = [&](const X& v) { return sigmoid(v * w); };
    const auto outer = [&](const X& v) { return checkpoint(inner, checkpoint(inner, v)) + v; };
    const auto plain = [&](const X& v) { return inner(inner(v)) + v; };
    const Gradients a = backward(sum(checkpoint(outer, x))), b = backward(sum(plain(x)));
    CHECK(a[x].to_vector() == b[x].to_vector());
    CHECK(a[w].to_vector() == b[w].to_vector());
    CHECK(a.size() == 2);
}

TEST_CASE("a result with a recipe is made again where it is saved, not kept") {
    X x = leaf(one_two);
    const X y = square(x), sum_of_two = x + x;
    const Saved<double, Cpu> saved = save(y);
    CHECK(saved.has_recipe()); // square keeps its input
    CHECK(saved.get().to_vector() == V{1, 4});
    CHECK(saved.get().data() != y.data());
    CHECK_FALSE(save(sum_of_two).has_recipe()); // a sum keeps nothing
    CHECK_FALSE(save(x).has_recipe());
    CHECK_FALSE(save(square(one_two)).has_recipe()); // not recorded

    // x⁴ through two squares, the second of which saves the first: its gradient is 4x³, once.
    const X loss = sum(square(y));
    CHECK(backward(loss)[x].to_vector() == V{4, 32});
    CHECK_THROWS_AS(saved.get(), AutogradError); // the recipe was freed with its rule

    const Saved<double, Cpu> late = save(square(x));
    x.mutable_data()[0] = 5;
    CHECK_THROWS_AS(late.get(), AutogradError);
}
