"""Writes include/lowrank/text/unicode_tables.hpp: which code points are letters, numbers and spaces to Hugging Face tokenizers.

The classes are asked from the byte-level pre-tokenizer itself, code point by code point: c is a letter where "a" + c stays
one piece, a number where "1" + c does, and anything else where "!" + c does; what stays with none of them is a space.

    python tests/scripts/text_unicode_tables.py [OUTPUT]
"""

import sys
from pathlib import Path

import tokenizers
from tokenizers.pre_tokenizers import ByteLevel

OUTPUT = Path(__file__).resolve().parents[2] / "include/lowrank/text/unicode_tables.hpp"


def classes():
    """The class of every code point: 'letter', 'number', 'space', or None (surrogates too)."""
    pieces = ByteLevel(add_prefix_space=False).pre_tokenize_str
    result = []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            result.append(None)
            continue
        joined = [name for name, prefix in (("letter", "a"), ("number", "1"), (None, "!")) if len(pieces(prefix + chr(code))) == 1]
        assert len(joined) <= 1, f"U+{code:04X} joins {joined}"
        result.append(joined[0] if joined else "space")
    return result


def ranges(table, name):
    found = []
    for code, value in enumerate(table):
        if value != name:
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def array(name, pairs):
    text = f"inline constexpr CodePointRange {name}_ranges[] = {{\n"
    line = "   "
    for first, last in pairs:
        item = f" {{0x{first:x}, 0x{last:x}}},"
        if len(line) + len(item) > 120:
            text += line + "\n"
            line = "   "
        line += item
    return text + line + "\n};\n"


def main():
    table = classes()
    text = f"""// Ranges of the code points that are letters, numbers and spaces to Hugging Face tokenizers. Generated, do not edit:
// by tests/scripts/text_unicode_tables.py, from the answers of tokenizers {tokenizers.__version__}.
#pragma once

namespace lowrank::detail {{

struct CodePointRange {{
    char32_t first, last; ///< both included
}};

// clang-format off
"""
    text += "\n".join(array(name, ranges(table, name)) for name in ("space", "number", "letter"))
    text += "// clang-format on\n\n} // namespace lowrank::detail\n"
    Path(sys.argv[1] if len(sys.argv) > 1 else OUTPUT).write_text(text)


main()
