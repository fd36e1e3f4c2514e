"""Writes a case that golden.py made in the original LLaVA's layout, with the same expected values.

    python xtask/python/original.py CASE OUT [--shards] [--inside]

--shards writes two pickles with an index; --inside puts the tower's weights into the checkpoint.
"""

import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("case", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--shards", action="store_true")
    parser.add_argument("--inside", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for path in args.case.iterdir():
        if path.suffix != ".safetensors" and not path.name.startswith("model") and path.name != "config.json":
            shutil.copy(path, args.out)
    shutil.copy(args.case / "expected.safetensors", args.out)

    config = json.loads((args.case / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    kinds = {"llama": "llava_llama", "mistral": "llava_mistral", "qwen2": "llava_qwen"}
    flat = dict(text, model_type=kinds[text["model_type"]])
    flat |= {
        "mm_hidden_size": vision["hidden_size"],
        "mm_vision_tower": "tower",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": config.get("vision_feature_layer", -2),
        "mm_vision_select_feature": {"default": "patch", "full": "cls_patch"}[
            config.get("vision_feature_select_strategy", "default")
        ],
        "tie_word_embeddings": text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)),
    }
    if "visual_token_reduction" in config:
        flat["visual_token_reduction"] = config["visual_token_reduction"]
    (args.out / "config.json").write_text(json.dumps(flat))

    whole, tower = {}, {}
    for path in sorted(args.case.glob("model*.safetensors")):
        for name, tensor in load_file(path).items():
            name = name.removeprefix("model.")
            name = name.replace("language_model.model.", "language_model.")
            name = name.replace("language_model.lm_head.", "lm_head.")
            name = name.replace("vision_tower.vision_model.", "vision_tower.")
            if name.startswith("vision_tower."):
                rest = "vision_model." + name.removeprefix("vision_tower.")
                if args.inside:
                    whole["model.vision_tower.vision_tower." + rest] = tensor
                else:
                    tower[rest] = tensor
                continue
            name = name.replace("language_model.", "model.")
            name = name.replace("multi_modal_projector.linear_1.", "model.mm_projector.0.")
            name = name.replace("multi_modal_projector.linear_2.", "model.mm_projector.2.")
            if name == "visual_registers":
                name = "model.visual_registers"
            whole[name] = tensor
    (args.out / "tower").mkdir(exist_ok=True)
    (args.out / "tower/config.json").write_text(json.dumps(vision))
    if tower:
        torch.save(tower, args.out / "tower/pytorch_model.bin")
    if not args.shards:
        torch.save(whole, args.out / "pytorch_model.bin")
        return
    names = sorted(whole)
    shards = {}
    for index, part in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-{index:05}-of-00002.bin"
        torch.save({name: whole[name] for name in part}, args.out / file)
        shards |= {name: file for name in part}
    (args.out / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))


if __name__ == "__main__":
    main()
