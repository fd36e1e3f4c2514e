"""Writes a reference case as llama.cpp has it: a decoder's GGUF file and an mmproj file.

    pip install gguf==0.19.0 safetensors
    python xtask/python/gguf_pair.py tests/golden/CASE tests/gguf/CASE

Names, row order of q and k, and metadata follow llama.cpp's convert_hf_to_gguf.py. The tokenizer is left
out: a case's own is no kind that GGUF has.
"""

import json
import pathlib
import re
import sys

import numpy as np
from gguf import GGUFWriter

DECODER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOWER = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}


def read(folder):
    """All tensors as float32; numpy has no bfloat16, so the bytes are widened here."""
    tensors = {}
    for path in sorted(folder.glob("model*.safetensors")):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        for name, info in header.items():
            if name == "__metadata__":
                continue
            start, end = (8 + length + at for at in info["data_offsets"])
            if info["dtype"] == "BF16":
                bits = np.frombuffer(data[start:end], np.uint16).astype(np.uint32) << 16
                values = bits.view(np.float32)
            else:
                kind = {"F16": np.float16, "F32": np.float32}[info["dtype"]]
                values = np.frombuffer(data[start:end], kind).astype(np.float32)
            tensors[name] = values.reshape(info["shape"])
    return tensors


def interleaved(weight, heads):
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def main():
    case, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    config = json.loads((case / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    qwen2 = text["model_type"] == "qwen2"
    kind = "qwen2" if qwen2 else "llama"
    heads = text.get("num_attention_heads", 32)
    kv_heads = text.get("num_key_value_heads", heads)
    out.mkdir(parents=True, exist_ok=True)
    decoder = GGUFWriter(out / "decoder.gguf", kind)
    mmproj = GGUFWriter(out / "mmproj.gguf", "clip")

    theta = text.get("rope_theta") or text.get("rope_parameters", {}).get("rope_theta", 10000.0)
    decoder.add_context_length(text.get("max_position_embeddings", 2048))
    decoder.add_embedding_length(text["hidden_size"])
    decoder.add_block_count(text["num_hidden_layers"])
    decoder.add_feed_forward_length(text["intermediate_size"])
    decoder.add_head_count(heads)
    decoder.add_head_count_kv(kv_heads)
    decoder.add_layer_norm_rms_eps(text.get("rms_norm_eps", 1e-6))
    decoder.add_rope_freq_base(theta)
    if "head_dim" in text:
        decoder.add_key_length(text["head_dim"])
        decoder.add_value_length(text["head_dim"])

    siglip = vision["model_type"] == "siglip_vision_model"
    layer = config.get("vision_feature_layer", -2)
    used = vision["num_hidden_layers"] + 1 + layer
    mmproj.add_bool("clip.has_vision_encoder", True)
    mmproj.add_string("clip.projector_type", "mlp")
    mmproj.add_bool("clip.use_gelu", siglip)
    for name, value in [
        ("image_size", vision["image_size"]),
        ("patch_size", vision["patch_size"]),
        ("embedding_length", vision["hidden_size"]),
        ("feed_forward_length", vision["intermediate_size"]),
        ("block_count", used),
        ("attention.head_count", vision["num_attention_heads"]),
    ]:
        mmproj.add_uint32(f"clip.vision.{name}", value)
    epsilon = vision.get("layer_norm_eps", 1e-6 if siglip else 1e-5)
    mmproj.add_float32("clip.vision.attention.layer_norm_epsilon", epsilon)
    half = [0.5] * 3
    mean = half if siglip else [0.48145466, 0.4578275, 0.40821073]
    std = half if siglip else [0.26862954, 0.26130258, 0.27577711]
    mmproj.add_array("clip.vision.image_mean", mean)
    mmproj.add_array("clip.vision.image_std", std)
    mmproj.add_string("clip.vision.image_aspect_ratio", "square")

    for name, values in sorted(read(case).items()):
        name = name.removeprefix("model.")
        name = name.replace("language_model.model.", "language_model.")
        name = name.replace("vision_tower.vision_model.", "vision_tower.")
        name = name.replace("language_model.lm_head.", "lm_head.")
        flat = values if values.ndim > 1 else values.astype(np.float32)
        if match := re.fullmatch(r"language_model\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
            index, part, suffix = match.groups()
            if not qwen2 and part.endswith(("q_proj", "k_proj")):
                flat = interleaved(flat, heads if part.endswith("q_proj") else kv_heads)
            add(decoder, f"blk.{index}.{DECODER[part]}.{suffix}", flat)
        elif name == "language_model.embed_tokens.weight":
            add(decoder, "token_embd.weight", flat)
        elif name == "language_model.norm.weight":
            add(decoder, "output_norm.weight", flat)
        elif name == "lm_head.weight":
            if not text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)):
                add(decoder, "output.weight", flat)
        elif match := re.fullmatch(r"vision_tower\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
            index, part, suffix = match.groups()
            if int(index) < used:
                add(mmproj, f"v.blk.{index}.{TOWER[part]}.{suffix}", flat)
        elif name.startswith("vision_tower.embeddings."):
            rest = name.removeprefix("vision_tower.embeddings.")
            rest = rest.replace("class_embedding", "class_embd")
            rest = rest.replace("patch_embedding", "patch_embd")
            rest = rest.replace("position_embedding", "position_embd")
            if rest != "position_ids":
                add(mmproj, f"v.{rest}", flat)
        elif name.startswith("vision_tower.pre_layrnorm."):
            add(mmproj, "v.pre_ln." + name.rsplit(".", 1)[1], flat)
        elif name.startswith("multi_modal_projector."):
            number, suffix = name.removeprefix("multi_modal_projector.linear_").split(".")
            add(mmproj, f"mm.{2 * int(number) - 2}.{suffix}", flat)
    for writer in (decoder, mmproj):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def add(writer, name, values):
    """Matrices as halves where nothing is lost, all else as float32, as llama.cpp keeps them."""
    halves = values.astype(np.float16)
    exact = values.ndim > 1 and np.array_equal(halves.astype(np.float32), values)
    writer.add_tensor(name, np.ascontiguousarray(halves if exact else values.astype(np.float32)))


if __name__ == "__main__":
    main()
