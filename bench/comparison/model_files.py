"""A GPT-2 with random weights in Transformers' format, and tokens for it, in plain Python: the same for a seed."""

import json
import random
import struct
from array import array

SHAPES = {
    "124M": dict(n_layer=12, n_embd=768, n_head=12, n_positions=1024, vocab_size=50257),
    "tiny": dict(n_layer=2, n_embd=64, n_head=2, n_positions=64, vocab_size=500),
}


def tensors_of(shape):
    """Names and shapes of GPT-2's tensors; the head is tied to the embedding."""
    width = shape["n_embd"]
    yield "transformer.wte.weight", (shape["vocab_size"], width)
    yield "transformer.wpe.weight", (shape["n_positions"], width)
    for layer in range(shape["n_layer"]):
        for name, size in (
            ("ln_1.weight", (width,)), ("ln_1.bias", (width,)),
            ("attn.c_attn.weight", (width, 3 * width)), ("attn.c_attn.bias", (3 * width,)),
            ("attn.c_proj.weight", (width, width)), ("attn.c_proj.bias", (width,)),
            ("ln_2.weight", (width,)), ("ln_2.bias", (width,)),
            ("mlp.c_fc.weight", (width, 4 * width)), ("mlp.c_fc.bias", (4 * width,)),
            ("mlp.c_proj.weight", (4 * width, width)), ("mlp.c_proj.bias", (width,)),
        ):  # fmt: skip
            yield f"transformer.h.{layer}.{name}", size
    yield "transformer.ln_f.weight", (width,)
    yield "transformer.ln_f.bias", (width,)


def write_model(folder, shape, seed):
    """config.json, model.safetensors, vocab.json and merges.txt, unless they are there. Rows of a matrix are windows at
    random places of a million normal numbers of deviation 0.02."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "complete").exists():
        return
    config = dict(
        architectures=["GPT2LMHeadModel"], model_type="gpt2", activation_function="gelu_new", layer_norm_epsilon=1e-5,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=True, torch_dtype="float32", **shape,
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    draw = random.Random(seed)
    count = 1 << 20
    normal = array("f", (draw.gauss(0, 0.02) for _ in range(count))).tobytes()
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, size in tensors_of(shape):
        bytes_ = 4 * size[0] * (size[1] if len(size) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": size, "data_offsets": [offset, offset + bytes_]}
        offset += bytes_
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, size in tensors_of(shape):
            if len(size) == 1:
                file.write(array("f", [1.0 if name.endswith("weight") else 0.0] * size[0]).tobytes())
            else:
                for _ in range(size[0]):
                    begin = draw.randrange(count - size[1])
                    file.write(normal[4 * begin : 4 * (begin + size[1])])
    write_tokenizer(folder, shape["vocab_size"])
    (folder / "complete").touch()


def write_tokenizer(folder, vocab_size):
    """256 bytes and made-up words, no merges, and nothing that ends a text: so many tokens as are asked for come."""
    vocabulary = {character: i for i, character in enumerate(byte_alphabet())}
    for i in range(len(vocabulary), vocab_size):
        vocabulary[f"Ġ{i:06d}"] = i
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def byte_alphabet():
    """The characters that stand for the bytes 0 to 255 in files of byte-level BPE."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)]


def write_ids(path, rows, length, vocab_size, seed):
    """JSON Lines of token ids, each one supervised."""
    draw = random.Random(seed)
    lines = []
    for _ in range(rows):
        ids = [draw.randrange(vocab_size) for _ in range(length)]
        lines.append(json.dumps({"input_ids": ids, "labels": ids}) + "\n")
    path.write_text("".join(lines))
