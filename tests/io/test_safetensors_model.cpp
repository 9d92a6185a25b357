#include <cstring>
#include <doctest/doctest.h>
#include <string>
#include <vector>

#include "io/temporary_directory.hpp"
#include "lowrank/io/safetensors_model.hpp"

using namespace lowrank;

namespace {

const std::filesystem::path fixtures = LOWRANK_TEST_FIXTURES;

float first_value(const TensorEntry& entry) {
    float value = 0;
    REQUIRE(entry.bytes.size() >= sizeof value);
    std::memcpy(&value, entry.bytes.data(), sizeof value);
    return value;
}

std::string refusal(const std::filesystem::path& path, const std::string& stem = "model") {
    return message_of<FileError>([&] { SafetensorsModel::open(path, stem); });
}

/// A copy of the sharded fixture whose index can be changed.
struct Sharded {
    TemporaryDirectory directory;
    std::filesystem::path index = directory / "model.safetensors.index.json";

    Sharded() {
        std::filesystem::copy(fixtures / "io_sharded", directory.path(), std::filesystem::copy_options::recursive);
    }
    void replace(const std::string& what, const std::string& with) const {
        std::string text = file_bytes(index);
        REQUIRE(text.find(what) != std::string::npos);
        write_file(index, text.replace(text.find(what), what.size(), with));
    }
};

} // namespace

TEST_CASE("shards are one model") {
    const Sharded copy;
    const SafetensorsModel model = SafetensorsModel::open(copy.directory.path());
    CHECK(model.files().size() == 3);
    CHECK(model.keys() == std::vector<std::string>{"layer.0.weight", "layer.1.weight", "layer.2.weight",
                                                   "layer.3.weight", "layer.4.weight"});
    for (int i = 0; i < 5; ++i) {
        CHECK(first_value(model.at(concat("layer.", i, ".weight"))) == static_cast<float>(i));
    }
    CHECK(model.origin("layer.4.weight") == (copy.directory / "model-00003-of-00003.safetensors").string());
    CHECK(model.contains("layer.0.weight"));
    CHECK(model.find("absent") == nullptr);
    const std::string message = message_of<FileError>([&] { model.at("layer.5.weight"); });
    CHECK(message.find("found no tensor \"layer.5.weight\"; similar: layer.0.weight") != std::string::npos);
}

TEST_CASE("a single file is a model too, by its directory or its path, and under another stem") {
    TemporaryDirectory directory;
    std::filesystem::copy_file(fixtures / "io_foreign_dtypes.safetensors", directory / "adapter_model.safetensors");
    CHECK(SafetensorsModel::open(directory.path(), "adapter_model").keys().size() == 6);
    const SafetensorsModel model = SafetensorsModel::open(directory / "adapter_model.safetensors");
    CHECK(model.find("known") != nullptr);
    CHECK_THROWS_AS(model.find("u16"), FileError);
    CHECK(refusal(directory.path()) ==
          directory.path().string() + ": found neither model.safetensors nor model.safetensors.index.json");
    CHECK(refusal(directory / "none").ends_with("(there is no such directory)"));
}

TEST_CASE("tensors outlive the model with their share of the file") {
    const TensorEntry entry = SafetensorsModel::open(fixtures / "io_sharded").at("layer.3.weight");
    CHECK(first_value(entry) == 3.0f);
}

TEST_CASE("an index that does not fit its shards is refused") {
    const Sharded copy;
    SUBCASE("missing shards are named") {
        std::filesystem::remove(copy.directory / "model-00001-of-00003.safetensors");
        std::filesystem::remove(copy.directory / "model-00003-of-00003.safetensors");
        CHECK(refusal(copy.directory.path())
                  .find("found no file model-00001-of-00003.safetensors, model-00003-of-00003.safetensors beside it") !=
              std::string::npos);
    }
    SUBCASE("a tensor that the index puts in another shard") {
        copy.replace("\"layer.0.weight\": \"model-00001", "\"layer.0.weight\": \"model-00002");
        CHECK(refusal(copy.directory.path()).find("key 'weight_map.layer.0.weight'") != std::string::npos);
    }
    SUBCASE("a tensor that no shard holds") {
        copy.replace("layer.4.weight", "layer.9.weight");
        CHECK(refusal(copy.directory.path()).find("key 'weight_map.layer.9.weight'") != std::string::npos);
    }
    SUBCASE("a way out of the directory") {
        copy.replace("model-00003-of-00003.safetensors", "../model-00003-of-00003.safetensors");
        CHECK(refusal(copy.directory.path()).find("expected the name of a .safetensors file beside the index") !=
              std::string::npos);
    }
    SUBCASE("a shard whose name is no string") {
        copy.replace("\"model-00003-of-00003.safetensors\"", "3");
        CHECK(refusal(copy.directory.path()).find("found 3 (number), expected a string") != std::string::npos);
    }
    SUBCASE("no weight_map") {
        copy.replace("weight_map", "weights");
        CHECK(refusal(copy.directory.path()).find("key 'weight_map': found no such key") != std::string::npos);
    }
    SUBCASE("a tensor in two shards") {
        std::filesystem::copy_file(copy.directory / "model-00001-of-00003.safetensors",
                                   copy.directory / "model-00003-of-00003.safetensors",
                                   std::filesystem::copy_options::overwrite_existing);
        CHECK(refusal(copy.directory.path()).find("tensor \"layer.0.weight\" is also in ") != std::string::npos);
    }
    SUBCASE("a broken shard") {
        write_file(copy.directory / "model-00002-of-00003.safetensors", "broken file");
        CHECK(refusal(copy.directory.path()).find("model-00002-of-00003.safetensors: ") != std::string::npos);
    }
}

TEST_CASE("the models of the shared data open") {
    const std::filesystem::path models = std::filesystem::path(LOWRANK_SHARED_DATA) / "models";
    if (!std::filesystem::exists(models)) {
        MESSAGE("skipped: no models at ", models.string());
        return;
    }
    CHECK(SafetensorsModel::open(models / "gpt-nano-sort").at("transformer.wte.weight").shape.front() == 3);
    CHECK(SafetensorsModel::open(models / "slm4096").at("transformer.wte.weight").shape.front() == 54);
    CHECK(SafetensorsModel::open(models / "stories260K").at("model.embed_tokens.weight").shape.front() == 512);
}
