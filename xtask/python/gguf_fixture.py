"""Writes random blocks of every GGUF number format, and what gguf's reference makes of them.

    pip install gguf==0.19.0
    python xtask/python/gguf_fixture.py crates/victor-weights/tests/fixtures/blocks.gguf

For every format NAME there is a tensor `NAME` of random bytes and `NAME.expected` in float32. Scales are
kept finite; everything else of a block takes any value.
"""

import pathlib
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Kind, GGUFWriter
from gguf.quants import dequantize

# Where the 16-bit floats of a block are.
SCALES = {
    Kind.F16: [0],
    Kind.BF16: [0],
    Kind.Q4_0: [0],
    Kind.Q4_1: [0, 2],
    Kind.Q5_0: [0],
    Kind.Q5_1: [0, 2],
    Kind.Q8_0: [0],
    Kind.Q2_K: [80, 82],
    Kind.Q3_K: [108],
    Kind.Q4_K: [0, 2],
    Kind.Q5_K: [0, 2],
    Kind.Q6_K: [208],
}
ROWS, WIDTH = 2, 512


def main() -> None:
    random = np.random.default_rng(0)
    target = pathlib.Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    writer = GGUFWriter(partial, "blocks")
    for kind, offsets in SCALES.items():
        elements, size = GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (ROWS * WIDTH // elements, size), dtype=np.uint8)
        for offset in offsets:
            # An exponent of all ones is no number.
            exponent = 0x7F if kind == Kind.BF16 else 0x7B
            blocks[:, offset + 1] &= 0x80 | exponent
            if kind == Kind.BF16:
                blocks[:, offset] &= 0x7F
        rows = blocks.reshape(ROWS, -1)
        data = rows.view(np.float16) if kind == Kind.F16 else rows
        with np.errstate(over="raise", invalid="raise"):
            expected = dequantize(data, kind).astype(np.float32)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        writer.add_tensor(f"{kind.name}.expected", expected)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(target)


if __name__ == "__main__":
    main()
