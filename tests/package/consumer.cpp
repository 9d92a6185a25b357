// What a consumer's project compiles: a gradient, and with lowrank::files the reading of a file.
#include <cstdio>

#include <lowrank/autograd/backward.hpp>
#include <lowrank/ops/elementwise.hpp>
#include <lowrank/ops/reduce.hpp>
#include <lowrank/version.hpp>
#if defined(WITH_FILES)
#include <lowrank/io/safetensors.hpp>
#endif

int main(int argc, char** argv) {
    using namespace lowrank;
    const auto x = leaf(Tensor<float>::from({1, 2, 3}, {3}));
    const Gradients gradients = backward(sum(square(x)));
    std::printf("%d.%d gradient %g\n", version_major, version_minor, double(gradients[x].to_vector()[2]));
#if defined(WITH_FILES)
    try {
        SafetensorsFile::open(argc > 1 ? argv[1] : "absent.safetensors");
    } catch (const FileError& error) {
        std::printf("%s\n", error.what());
    }
#else
    (void)argc, (void)argv;
#endif
}
