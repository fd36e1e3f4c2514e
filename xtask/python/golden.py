#!/usr/bin/env python3
"""An independent reference for Victor: unseen golden cases, and the comparison with what `victor trace` writes.

A golden case is a folder with a tiny random checkpoint laid out as it would come from the Hub, one or more pictures, a
prompt (`case.json`) and what an engine has to compute from them (`expected.safetensors`). This script never reads
Victor's code and shares none with it: pictures, towers and decoders without a reduction are run by `transformers`;
registers, dropped rows and FastV's ranking are computed here, on the same weights, by recomputing the whole sequence at
every step with no cache.

    pip install -r requirements.txt

    golden.py check   --cases GOLDEN                      recompute existing cases: the proof that this script is right
    golden.py make    --out DIR --like GOLDEN --seed 7    new cases; tokenizers and templates are taken from GOLDEN
    golden.py compare CASE TRACE.safetensors              one trace against one case; exit status 1 beyond the tolerance
    golden.py run     --victor BINARY --cases DIR         trace and compare every case in DIR

`make --list` names the kinds of cases. The same seed gives the same cases. `make` redraws the weights until a case is a
good one:

- each of the 12 greedy steps has a margin of at least 0.05 over the second best, without the stop or image tokens;
- `transformers` and the decoder written here agree on it, and so do float32 and float64, so what is left to an
  engine is much less than the tolerance;
- it bites: a mirrored picture, positions renumbered after the drop, a drop one layer off or registers in the wrong
  place would each move the first logits by far more than the tolerance.

Stages compared, by relative L2 of float32 values: `pixel_values`, `vision_features`, `projected`, `inputs_embeds`,
`logits_prefill` (only rows that reach the head), `first_logits`; compared exactly: `input_ids`, `fastv_kept`, and the
generated ids, which a trace holds as `generated_ids`.

Exit status: 0 all well, 1 a difference or a failed case, 2 nothing to do or wrong usage.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from safetensors.torch import load_file, save_file

STEPS = 12
MIN_MARGIN = 0.05
TOLERANCE = 1e-5
MAX_ATTEMPTS = 80
# What `make` asks of a case, see the top.
MAX_ROUNDING = 4e-6
MIN_BITE = 1e-3

FLOAT_STAGES = ["pixel_values", "vision_features", "projected", "inputs_embeds", "logits_prefill", "first_logits"]
# Decoders, inside a LLaVA checkpoint or alone.
TEXT_TYPES = ("llama", "mistral", "qwen2")
EXACT_STAGES = ["input_ids", "fastv_kept"]


class Unsupported(Exception):
    """A case this script cannot recompute (the original LLaVA layout)."""


class Rejected(Exception):
    """A drawn case that is not good enough."""


# ---------------------------------------------------------------------------------------------------------------------
# Comparing


def relative_l2(actual, expected) -> float:
    """‖a − e‖ / ‖e‖ in float64; NaN where either holds one."""
    actual, expected = actual.double().flatten(), expected.double().flatten()
    scale = expected.norm().item()
    difference = (actual - expected).norm().item()
    return difference / scale if scale > 0 else difference


@dataclass
class Row:
    """One compared stage."""

    stage: str
    error: float | None  # relative L2, or None for a stage compared exactly
    ok: bool
    note: str = ""

    def json(self) -> dict:
        finite = self.error is not None and math.isfinite(self.error)
        return {"stage": self.stage, "relative_l2": self.error if finite else None, "ok": self.ok, "note": self.note}


def compare_stages(expected: dict, actual: dict, expected_ids: list[int], actual_ids, tolerance: float) -> list[Row]:
    """Every stage the case names, and the generated ids. A missing stage or another shape is a failure."""
    rows = []
    for name in EXACT_STAGES[:1] + FLOAT_STAGES + EXACT_STAGES[1:]:
        if name not in expected:
            continue
        want = expected[name]
        if name not in actual:
            rows.append(Row(name, None, False, "missing"))
            continue
        got = actual[name]
        if tuple(got.shape) != tuple(want.shape):
            rows.append(Row(name, None, False, f"shape {list(got.shape)}, expected {list(want.shape)}"))
        elif name in EXACT_STAGES:
            wrong = int((got.long() != want.long()).sum())
            rows.append(Row(name, None, wrong == 0, "equal" if wrong == 0 else f"{wrong} of {want.numel()} differ"))
        else:
            error = relative_l2(got, want)
            rows.append(Row(name, error, error <= tolerance, "" if math.isfinite(error) else "not finite"))
    unknown = set(expected) - set(FLOAT_STAGES) - set(EXACT_STAGES)
    rows.extend(Row(name, None, False, "a stage this script does not know") for name in sorted(unknown))
    if actual_ids is None:
        rows.append(Row("generated_ids", None, False, "missing"))
    else:
        equal = list(actual_ids) == list(expected_ids)
        note = "equal"
        if not equal:
            same = 0
            for a, b in zip(actual_ids, expected_ids, strict=False):
                if a != b:
                    break
                same += 1
            note = f"the first {same} of {len(expected_ids)} agree (got {len(actual_ids)})"
        rows.append(Row("generated_ids", None, equal, note))
    return rows


def print_rows(rows: list[Row]) -> None:
    for row in rows:
        value = f"{row.error:.2e}" if row.error is not None else ""
        print(f"  {row.stage:16} {value:>9}  {'ok' if row.ok else 'FAIL':4} {row.note}".rstrip())


def compare_trace(case_dir: Path, trace: Path, tolerance: float) -> list[Row]:
    case = json.loads((case_dir / "case.json").read_text())
    expected = load_file(case_dir / "expected.safetensors")
    actual = load_file(trace)
    ids = actual["generated_ids"].flatten().tolist() if "generated_ids" in actual else None
    return compare_stages(expected, actual, case["expected_ids"], ids, tolerance)


# ---------------------------------------------------------------------------------------------------------------------
# The reference


@dataclass
class Reference:
    """What a case computes."""

    stages: dict
    ids: list[int]
    margins: list[float]
    text: str
    spans: list[list[int]]
    checks: dict = field(default_factory=dict)


def setup_torch(threads: int) -> None:
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def tensors_on_disk(case_dir: Path) -> dict:
    files = sorted(case_dir.glob("model*.safetensors"))
    if not files:
        raise Unsupported("no safetensors (the original layout)")
    tensors = {}
    for file in files:
        tensors.update(load_file(file))
    return tensors


def hub_to_current(name: str) -> str:
    """The name transformers 5 gives to a tensor a transformers 4 checkpoint names `name`."""
    for old, new in [
        ("language_model.lm_head.", "lm_head."),
        ("language_model.model.", "model.language_model."),
        ("vision_tower.vision_model.", "model.vision_tower."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
        ("image_newline", "model.image_newline"),
    ]:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def model_class(model_type: str):
    from transformers import AutoModelForCausalLM, LlavaForConditionalGeneration, LlavaNextForConditionalGeneration

    if model_type in TEXT_TYPES:
        return AutoModelForCausalLM
    cls = {"llava": LlavaForConditionalGeneration, "llava_next": LlavaNextForConditionalGeneration}.get(model_type)
    if cls is None:
        raise Unsupported(f"model_type {model_type}")
    return cls


def load_model(case_dir: Path, config: dict):
    """The transformers model in float32, after checking that every tensor on disk really arrived in it."""
    import torch
    cls = model_class(config["model_type"])
    disk = tensors_on_disk(case_dir)
    registers = disk.pop("visual_registers", None)
    model = cls.from_pretrained(case_dir, dtype=torch.float32).eval()
    held = model.state_dict()
    arrived = {hub_to_current(name): tensor for name, tensor in disk.items()}
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    absent = set(held) - set(arrived) - tied
    strange = set(arrived) - set(held)
    if absent or strange:
        raise RuntimeError(f"transformers lacks {sorted(strange)[:4]}, the checkpoint lacks {sorted(absent)[:4]}")
    for name, tensor in arrived.items():
        if not torch.equal(held[name], tensor.float()):
            raise RuntimeError(f"transformers changed {name} when loading")
    return model, registers.float() if registers is not None else None


def pillow_pixels(images: list, settings: dict) -> np.ndarray:
    """CLIP's preprocessing with nothing but Pillow and float64, as a check on the processor."""
    from PIL import Image

    out = []
    for image in images:
        image = image.convert("RGB")
        width, height = image.size
        size = settings["size"]
        if "shortest_edge" in size:
            edge = size["shortest_edge"]
            if width <= height:
                target = (edge, int(edge * height / width))
            else:
                target = (int(edge * width / height), edge)
        else:
            target = (size["width"], size["height"])
        image = image.resize(target, Image.Resampling(settings["resample"]))
        if settings.get("do_center_crop"):
            crop = settings["crop_size"]
            top, left = (target[1] - crop["height"]) // 2, (target[0] - crop["width"]) // 2
            image = image.crop((left, top, left + crop["width"], top + crop["height"]))
        pixels = np.asarray(image, dtype=np.float64) * settings["rescale_factor"]
        pixels = (pixels - np.array(settings["image_mean"])) / np.array(settings["image_std"])
        out.append(pixels.transpose(2, 0, 1))
    return np.stack(out)


def pillow_tiles(image, settings: dict) -> np.ndarray:
    """LLaVA-NeXT's views of one picture with nothing but Pillow and float64: the whole picture squeezed into one view,
    then the tiles of the picture fitted into the best grid resolution, centred on black."""
    from PIL import Image

    image = image.convert("RGB")
    width, height = image.size
    side = settings["crop_size"]["height"]
    filter = Image.Resampling(settings["resample"])

    def kept_and_wasted(size):
        scale = min(size[1] / width, size[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - size[0] * size[1]

    rows, columns = max(settings["image_grid_pinpoints"], key=kept_and_wasted)
    if columns / width < rows / height:
        inner = (columns, min(math.ceil(height * (columns / width)), rows))
    else:
        inner = (min(math.ceil(width * (rows / height)), columns), rows)
    canvas = Image.new("RGB", (columns, rows))
    canvas.paste(image.resize(inner, filter), ((columns - inner[0]) // 2, (rows - inner[1]) // 2))
    views = [image.resize((side, side), filter)]
    for top in range(0, rows, side):
        views += [canvas.crop((left, top, left + side, top + side)) for left in range(0, columns, side)]
    pixels = np.stack([np.asarray(view, dtype=np.float64) for view in views]) * settings["rescale_factor"]
    pixels = (pixels - np.array(settings["image_mean"])) / np.array(settings["image_std"])
    return pixels.transpose(0, 3, 1, 2)


class Decoder:
    """A Llama-family decoder written from its definition, on the weights of a transformers model.

    Rows are always given in the order of their positions, so "may attend to" is "comes not later in the list", also
    after rows were dropped.
    """

    def __init__(self, model, dtype):
        config = model.config.get_text_config()
        if config.model_type not in TEXT_TYPES:
            raise Unsupported(f"decoder {config.model_type}")
        state = model.state_dict()
        prefix = "model." if model.config.model_type in TEXT_TYPES else "model.language_model."
        self.w = {k[len(prefix) :]: v.to(dtype) for k, v in state.items() if k.startswith(prefix)}
        self.embedding = self.w["embed_tokens.weight"]
        self.head = state["lm_head.weight"].to(dtype)
        self.layers = config.num_hidden_layers
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads or self.heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.dtype = dtype
        self.frequencies = self._frequencies(config.rope_parameters)

    def _frequencies(self, rope: dict):
        import torch

        exponent = torch.arange(0, self.head_dim, 2, dtype=self.dtype) / self.head_dim
        frequency = 1.0 / rope["rope_theta"] ** exponent
        kind = rope.get("rope_type", "default")
        if kind == "default":
            return frequency
        if kind != "llama3":
            raise Unsupported(f"rope {kind}")
        # Slow waves (longer than the context the model was made for) are stretched by `factor`, fast ones kept, and
        # those in between interpolated by how many turns they make in that context.
        turns = rope["original_max_position_embeddings"] * frequency / (2 * torch.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return frequency * (kept + (1 - kept) / rope["factor"])

    def _norm(self, x, weight):
        return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * weight

    def _linear(self, x, name):
        y = x @ self.w[f"{name}.weight"].T
        bias = self.w.get(f"{name}.bias")
        return y if bias is None else y + bias

    def _rotate(self, x, positions):
        """x: [rows, heads, head_dim]; the first half of a head is paired with the second."""
        import torch

        angle = positions.to(self.dtype)[:, None] * self.frequencies
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def _attention(self, layer: int, x, positions):
        """The attention weights [heads, rows, rows] and the values [rows, heads, head_dim] of normed rows x."""
        import torch

        rows, name = x.shape[0], f"layers.{layer}.self_attn"
        q = self._linear(x, f"{name}.q_proj").view(rows, self.heads, self.head_dim)
        k = self._linear(x, f"{name}.k_proj").view(rows, self.kv_heads, self.head_dim)
        v = self._linear(x, f"{name}.v_proj").view(rows, self.kv_heads, self.head_dim)
        q, k = self._rotate(q, positions), self._rotate(k, positions)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) / self.head_dim**0.5
        later = torch.ones(rows, rows, dtype=torch.bool).triu(1)
        return scores.masked_fill(later, float("-inf")).softmax(-1), v

    def _layer(self, layer: int, x, positions):
        import torch

        name = f"layers.{layer}"
        weights, values = self._attention(layer, self._norm(x, self.w[f"{name}.input_layernorm.weight"]), positions)
        mixed = torch.einsum("hqk,khd->qhd", weights, values).flatten(1)
        x = x + self._linear(mixed, f"{name}.self_attn.o_proj")
        y = self._norm(x, self.w[f"{name}.post_attention_layernorm.weight"])
        gate = self._linear(y, f"{name}.mlp.gate_proj")
        y = gate * gate.sigmoid() * self._linear(y, f"{name}.mlp.up_proj")
        return x + self._linear(y, f"{name}.mlp.down_proj")

    def logits(self, x, positions, dropped=None, drop_layer: int | None = None, compact: bool = False):
        """Logits of the rows that survive: those `dropped` (a mask) are gone from layer `drop_layer` on."""
        import torch

        for layer in range(self.layers):
            if layer == drop_layer:
                x, positions = x[~dropped], positions[~dropped]
                if compact:
                    positions = torch.arange(len(positions))
            x = self._layer(layer, x, positions)
        return self._norm(x, self.w["norm.weight"]) @ self.head.T

    def fastv(self, x, positions, spans: list[list[int]], keep: int, drop_layer: int) -> list[int]:
        """The rows of each span that the last row attends to most in the layer before the drop."""
        for layer in range(drop_layer - 1):
            x = self._layer(layer, x, positions)
        layer = drop_layer - 1
        weights, _ = self._attention(layer, self._norm(x, self.w[f"layers.{layer}.input_layernorm.weight"]), positions)
        row = weights[:, -1].mean(0)
        kept = []
        for start, end in spans:
            best = row[start:end].sort(descending=True, stable=True).indices[:keep]
            kept.extend(sorted((best + start).tolist()))
        return kept


@dataclass
class Plan:
    """A prompt as the decoder sees it: its rows with registers, and which of them are dropped from which layer on."""

    rows: object
    dropped: object
    drop_layer: int | None


def place(embeds, spans: list[list[int]], registers, before: bool = False):
    """Puts the registers right after each image (or, to see that it matters, right before), and marks image rows."""
    import torch

    parts, visual, done = [], [], 0
    for start, end in spans:
        image = [embeds[start:end], registers]
        flags = [[True] * (end - start), [False] * len(registers)]
        if before:
            image.reverse(), flags.reverse()
        parts += [embeds[done:start], *image]
        visual += [False] * (start - done) + sum(flags, [])
        done = end
    parts.append(embeds[done:])
    visual += [False] * (len(embeds) - done)
    return torch.cat(parts), torch.tensor(visual, dtype=torch.bool)


def plan(decoder: Decoder, embeds, spans, registers, reduction: dict | None):
    """The plan of a prompt, and the image rows FastV keeps (None for the others)."""
    import torch

    if reduction is None:
        return Plan(embeds, torch.zeros(len(embeds), dtype=torch.bool), None), None
    k = reduction["drop_layer"]
    if reduction["type"] == "victor":
        if registers is None or len(registers) != reduction["num_registers"] or not 1 <= k <= decoder.layers:
            raise RuntimeError("the registers do not fit the reduction")
        rows, visual = place(embeds, spans, registers.to(embeds.dtype))
        return Plan(rows, visual, k), None
    if reduction["type"] == "fastv":
        kept = decoder.fastv(embeds, torch.arange(len(embeds)), spans, reduction["num_visual_tokens"], k)
        _, visual = place(embeds, spans, embeds[:0])
        visual[kept] = False
        return Plan(embeds, visual, k), kept
    raise Unsupported(f"reduction {reduction['type']}")


def decode_uncached(decoder: Decoder, plan: Plan, steps: int):
    """Prefill logits, greedy ids and margins; the whole sequence is computed anew at every step."""
    import torch

    rows, dropped = plan.rows, plan.dropped
    prefill, ids, margins = None, [], []
    while len(ids) < steps:
        logits = decoder.logits(rows, torch.arange(len(rows)), dropped, plan.drop_layer)
        prefill = logits if prefill is None else prefill
        best = logits[-1].topk(2)
        ids.append(best.indices[0].item())
        margins.append((best.values[0] - best.values[1]).item())
        rows = torch.cat([rows, decoder.embedding[ids[-1]][None]])
        dropped = torch.cat([dropped, torch.zeros(1, dtype=torch.bool)])
    return prefill, ids, margins


def run_towers(model, inputs, next_layout: bool) -> tuple[dict, object]:
    """One pass of transformers: stages up to the embeddings, and its own logits."""
    if model.config.model_type in TEXT_TYPES:
        ids = inputs["input_ids"]
        embeds = model.get_input_embeddings()(ids)[0]
        return {"input_ids": ids[0], "inputs_embeds": embeds}, model(**inputs).logits[0]
    caught = {}
    hooks = [
        model.model.multi_modal_projector.register_forward_hook(
            lambda _m, args, out: caught.update(features=args[0], projected=out)
        ),
        model.model.language_model.register_forward_pre_hook(
            lambda _m, _args, kwargs: caught.update(embeds=kwargs["inputs_embeds"]), with_kwargs=True
        ),
    ]
    try:
        logits = model(**inputs).logits[0]
    finally:
        for hook in hooks:
            hook.remove()
    stages = {"input_ids": inputs["input_ids"][0], "inputs_embeds": caught["embeds"][0]}
    if "pixel_values" in inputs:
        stages["pixel_values"] = inputs["pixel_values"]
        if next_layout:
            image = inputs["input_ids"][0] == model.config.image_token_id
            stages["projected"] = stages["inputs_embeds"][image]
        else:
            stages["vision_features"] = caught["features"].flatten(0, -2)
            stages["projected"] = caught["projected"].flatten(0, -2)
    return stages, logits


def image_spans(ids: list[int], image_token: int, images: int, next_layout: bool) -> list[list[int]]:
    """[start, end) of each image. Neighbouring images touch, so a run of image ids is cut into equal parts (LLaVA-NeXT,
    whose images differ in length, may not have neighbours here)."""
    where = [i for i, token in enumerate(ids) if token == image_token]
    if not images:
        return []
    if next_layout:
        starts = [i for i in where if i - 1 not in set(where)]
        ends = [i + 1 for i in where if i + 1 not in set(where)]
        if len(starts) != images:
            raise Unsupported("LLaVA-NeXT images side by side")
        return [list(pair) for pair in zip(starts, ends, strict=True)]
    each = len(where) // images
    spans = [[where[i * each], where[i * each] + each] for i in range(images)]
    assert len(where) == each * images and all(where[i * each + each - 1] == spans[i][1] - 1 for i in range(images))
    return spans


def reference(
    case_dir: Path, images: list[str], prompt: str, reduction: dict | None, thorough: bool = False
) -> Reference:
    """Everything a case has to compute. `thorough` adds the checks `make` asks for."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, AutoTokenizer

    config = json.loads((case_dir / "config.json").read_text())
    model, registers = load_model(case_dir, config)
    next_layout = config["model_type"] == "llava_next"
    tokenizer = AutoTokenizer.from_pretrained(case_dir)
    pictures = [Image.open(case_dir / name) for name in images]
    if config["model_type"] in TEXT_TYPES:
        inputs = {name: tensor for name, tensor in tokenizer(prompt, return_tensors="pt").items() if name == "input_ids"}
    else:
        processor = AutoProcessor.from_pretrained(case_dir)
        inputs = dict(processor(text=prompt, images=pictures or None, return_tensors="pt"))
    stages, own_logits = run_towers(model, inputs, next_layout)
    ids = stages["input_ids"].tolist()
    spans = image_spans(ids, getattr(model.config, "image_token_id", None), len(images), next_layout)
    checks = {}

    if pictures:
        settings = processor.image_processor.to_dict()
        if next_layout:
            off = 0.0
            for given, picture in zip(stages["pixel_values"], pictures, strict=True):
                plain = torch.from_numpy(pillow_tiles(picture, settings))
                off = max(off, (given[: len(plain)] - plain).abs().max().item(), given[len(plain) :].abs().sum().item())
            checks["pixels"] = off
        else:
            plain = torch.from_numpy(pillow_pixels(pictures, settings))
            checks["pixels"] = (stages["pixel_values"] - plain).abs().max().item()

    narrow = Decoder(model, torch.float32)
    no_registers = Plan(stages["inputs_embeds"], torch.zeros(len(ids), dtype=torch.bool), None)
    plain_logits, plain_ids, plain_margins = decode_uncached(narrow, no_registers, STEPS if reduction is None else 1)
    checks["decoder"] = relative_l2(plain_logits, own_logits)

    seen, kept = plan(narrow, stages["inputs_embeds"], spans, registers, reduction)
    if reduction is None:
        stages["logits_prefill"] = own_logits
        out = model.generate(
            **inputs, do_sample=False, max_new_tokens=STEPS, output_logits=True, return_dict_in_generate=True
        )
        generated = out.sequences[0, len(ids) :].tolist()
        margins = [(top[0] - top[1]).item() for top in (step[0].topk(2).values for step in out.logits)]
        checks["uncached"] = 0.0 if generated == plain_ids else 1.0
    else:
        stages["logits_prefill"], generated, margins = decode_uncached(narrow, seen, STEPS)
    if kept is not None:
        stages["fastv_kept"] = torch.tensor(kept)
    stages["first_logits"] = stages["logits_prefill"][-1]
    text = tokenizer.decode(generated, skip_special_tokens=True)

    if thorough:
        checks["alternatives"] = alternatives(narrow, seen, stages, spans, registers, reduction)
        if pictures:
            mirrored = dict(inputs, pixel_values=inputs["pixel_values"].flip(-1))
            other, _ = run_towers(model, mirrored, next_layout)
            again, _ = plan(narrow, other["inputs_embeds"], spans, registers, reduction)
            _first(checks["alternatives"], "mirrored picture", narrow, again, stages)
        if pictures and next_layout:
            newline = model.model.image_newline
            kept_newline = newline.clone()
            newline.zero_()
            other, _ = run_towers(model, inputs, next_layout)
            newline.copy_(kept_newline)
            again, _ = plan(narrow, other["inputs_embeds"], spans, registers, reduction)
            _first(checks["alternatives"], "no newline", narrow, again, stages)
        checks["rounding"], wide_ids = rounding(model, inputs, stages, spans, registers, reduction, next_layout)
        checks["float64_ids"] = 0.0 if wide_ids == generated else 1.0

    stages = {
        k: v.clone().contiguous() if k in EXACT_STAGES else v.float().clone().contiguous() for k, v in stages.items()
    }
    return Reference(stages, generated, margins, text, spans, checks)


def _first(into: dict, name: str, decoder: Decoder, seen: Plan, stages: dict, **options) -> None:
    import torch

    logits = decoder.logits(seen.rows, torch.arange(len(seen.rows)), seen.dropped, seen.drop_layer, **options)
    into[name] = relative_l2(logits[-1], stages["first_logits"])


def alternatives(decoder: Decoder, seen: Plan, stages: dict, spans, registers, reduction: dict | None) -> dict:
    """How far the first logits move under mistakes an engine might make."""
    moved = {}
    if reduction is None or reduction["type"] != "victor" or not spans:
        return moved
    k = reduction["drop_layer"]
    _first(
        moved,
        "no drop" if k < decoder.layers else "drop before the last layer",
        decoder,
        Plan(seen.rows, seen.dropped, None if k < decoder.layers else k - 1),
        stages,
    )
    if k < decoder.layers:
        _first(moved, "drop one layer late", decoder, Plan(seen.rows, seen.dropped, k + 1), stages)
        if k > 1:
            _first(moved, "drop one layer early", decoder, Plan(seen.rows, seen.dropped, k - 1), stages)
        # With nothing before the only image, renumbering shifts all rows alike, which RoPE does not see.
        if len(spans) > 1 or spans[0][0] > 0:
            _first(moved, "renumbered", decoder, seen, stages, compact=True)
    rows, visual = place(stages["inputs_embeds"], spans, registers, before=True)
    _first(moved, "registers before the image", decoder, Plan(rows, visual, seen.drop_layer), stages)
    if len(registers) > 1:
        rows, visual = place(stages["inputs_embeds"], spans, registers.flip(0))
        _first(moved, "registers reversed", decoder, Plan(rows, visual, seen.drop_layer), stages)
    return moved


def rounding(model, inputs, stages, spans, registers, reduction, next_layout) -> tuple[float, list[int]]:
    """The largest relative L2 between a stage in float32 and in float64, and the ids in float64."""
    import torch

    model = model.double()
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    wide, _ = run_towers(model, inputs, next_layout)
    decoder = Decoder(model, torch.float64)
    seen, _ = plan(decoder, wide["inputs_embeds"], spans, registers, reduction)
    wide["logits_prefill"], ids, _ = decode_uncached(decoder, seen, STEPS)
    wide["first_logits"] = wide["logits_prefill"][-1]
    model.float()
    return max(relative_l2(stages[name], wide[name]) for name in FLOAT_STAGES if name in stages), ids


# ---------------------------------------------------------------------------------------------------------------------
# Making cases

SYSTEM = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "You are a careful assistant. Answer in one short sentence, and say so when you cannot see it.",
    "Antworte knapp; 答えは短く。",
]
QUESTIONS = [
    "Describe the image.",
    "What color is the largest shape, and where does it stand?",
    "How many corners are there?",
    "Was steht auf dem Schild – “Café Ñandú” oder nichts?",
    "Is it day or night?  Explain step by step.",
    "这张图片里有什么？ 🙂",
]
FILLER = "It was taken in 1987, on a rainy afternoon near the harbour; nobody remembers why."


def vicuna(question: str, system: str = "") -> str:
    return f"{system}{' ' if system else ''}USER: <image>\n{question} ASSISTANT:"


def chatty(question: str, system: str = "") -> str:
    before = f"<s>system\n{system}</s>\n" if system else ""
    return f"{before}<s>user\n<image>\n{question}</s>\n<s>assistant\n"


@dataclass
class Kind:
    """What a kind of case fixes; everything else is drawn."""

    tower: str  # llama, llama3, llama31, mistral, qwen2
    layout: str  # legacy (transformers 4 names, float16) or sharded (transformers 5 names, bfloat16)
    prompt: object  # (question, system) -> prompt
    about: str
    vision: str = "clip"
    images: int = 1
    system: bool = False
    tied: bool = False
    registers: tuple = ()  # M is drawn from these; none: no reduction
    drop: str = ""  # k: first, early, any, never
    tiles: bool = False  # LLaVA-NeXT
    shapes: tuple = ()  # of the pictures: portrait, landscape or square; none: any
    patch: int = 0  # a patch that is not drawn, with a picture size of its own:
    edge: int = 224
    strategy: str = ""  # of the features, where it is not the tower's usual one
    extra: bool = False  # only made when named


KINDS = {
    "llava15-vicuna": Kind("llama", "legacy", vicuna, "float16 Hub checkpoint of LLaVA-1.5"),
    "llava15-llama3": Kind("llama3", "sharded", chatty, "two bfloat16 shards, grouped heads"),
    "llava15-two-images": Kind(
        "llama3",
        "sharded",
        lambda q, s: f"USER: Here is one: <image>\nand another: <image>\n{q} ASSISTANT:",
        "two pictures",
        images=2,
    ),
    "llava15-mistral": Kind("mistral", "legacy", vicuna, "Mistral, system prompt before the image", system=True),
    "llava15-qwen2-tied": Kind("qwen2", "sharded", chatty, "biases, tied embeddings", tied=True),
    "llava-dinov2-llama3": Kind(
        "llama3", "sharded", chatty, "DINOv2 with an interpolated position table", vision="dinov2"
    ),
    "victor-vicuna": Kind(
        "llama",
        "legacy",
        vicuna,
        "registers after a system prompt and the image",
        system=True,
        registers=(2, 3, 5, 8),
        drop="early",
    ),
    "victor-llama3-k1": Kind(
        "llama3",
        "sharded",
        chatty,
        "one or few registers, image rows dropped before layer 1",
        registers=(1, 2),
        drop="first",
    ),
    "victor-two-images": Kind(
        "mistral",
        "legacy",
        lambda q, s: f"{s} USER: Here is one: <image>\nand another: <image>\n{q} ASSISTANT:",
        "two pictures",
        images=2,
        system=True,
        registers=(1, 4, 6),
        drop="any",
    ),
    "victor-ragged": Kind(
        "qwen2",
        "sharded",
        lambda q, s: f"<image><image>{FILLER} Now this one: <image>\n{q} ASSISTANT:",
        "three pictures: one first in the prompt, one right after it, one far off",
        images=3,
        registers=(2, 3, 7),
        drop="any",
    ),
    "victor-mid-prompt": Kind(
        "llama3",
        "sharded",
        lambda q, s: f"<s>system\n{s}</s>\n<s>user\n{FILLER} Here: <image> {FILLER}\n{q}</s>\n<s>assistant\n",
        "image amid a long prompt, more registers than image rows, DINOv2",
        vision="dinov2",
        system=True,
        registers=(27, 33, 40),
        drop="early",
    ),
    "victor-nodrop": Kind(
        "qwen2",
        "sharded",
        chatty,
        "k = number of layers: registers, but nothing dropped; tied",
        tied=True,
        registers=(3, 8),
        drop="never",
    ),
    "victor-image-last": Kind(
        "llama",
        "legacy",
        lambda q, s: f"USER: {q} <image>",
        "nothing after the image: the last register answers",
        registers=(2, 5),
        drop="early",
        extra=True,
    ),
    "victor-text-only": Kind(
        "llama3",
        "sharded",
        lambda q, s: f"<s>user\n{FILLER} {q}</s>\n<s>assistant\n",
        "no picture, so no registers either",
        images=0,
        registers=(4,),
        drop="early",
        extra=True,
    ),
    "llava15-llama31": Kind("llama31", "sharded", chatty, "llama3 rope scaling", system=True),
    "llava15-clip-b32": Kind("llama", "legacy", vicuna, "CLIP B/32: 49 visual tokens", patch=32),
    "llava15-clip-b16": Kind("qwen2", "sharded", chatty, "CLIP B/16: 196 visual tokens", patch=16),
    "llava15-clip-l14-336": Kind("llama3", "sharded", chatty, "CLIP L/14-336: 576 visual tokens", patch=14, edge=336),
    "next-portrait": Kind(
        "mistral", "legacy", vicuna, "LLaVA-NeXT, a tall picture", tiles=True, shapes=("portrait",)
    ),
    "next-landscape": Kind(
        "qwen2", "sharded", vicuna, "LLaVA-NeXT, a wide picture", tiles=True, shapes=("landscape",)
    ),
    "next-square": Kind("qwen2", "sharded", vicuna, "LLaVA-NeXT, a square picture", tiles=True, shapes=("square",)),
    "next-two-images": Kind(
        "mistral",
        "legacy",
        lambda q, s: f"USER: Here is one: <image>\nand another: <image>\n{q} ASSISTANT:",
        "LLaVA-NeXT, two pictures of different shapes",
        images=2,
        tiles=True,
        shapes=("portrait", "landscape"),
    ),
    "victor-next": Kind(
        "qwen2",
        "sharded",
        vicuna,
        "LLaVA-NeXT with registers after all tiles",
        system=True,
        registers=(2, 5, 8),
        drop="any",
        tiles=True,
    ),
    "victor-next-two-images": Kind(
        "qwen2",
        "sharded",
        lambda q, s: f"USER: Here is one: <image>\nand another: <image>\n{q} ASSISTANT:",
        "LLaVA-NeXT with registers, two pictures of different shapes",
        images=2,
        registers=(1, 3, 6),
        drop="any",
        tiles=True,
        shapes=("landscape", "square"),
    ),
    "text-llama31": Kind(
        "llama31", "sharded", lambda q, s: f"{FILLER} {q}", "a decoder alone, tied", vision="", images=0, tied=True
    ),
    "text-mistral": Kind(
        "mistral", "legacy", lambda q, s: f"{FILLER} {q}", "a decoder alone, float16", vision="", images=0
    ),
    "text-qwen2": Kind(
        "qwen2", "sharded", lambda q, s: f"{FILLER} {q}", "a decoder alone, biases", vision="", images=0
    ),
    "victor-llama31": Kind(
        "llama31",
        "sharded",
        chatty,
        "llama3 rope scaling with registers",
        system=True,
        registers=(3, 6),
        drop="any",
        extra=True,
    ),
    "llava-siglip-qwen2": Kind("qwen2", "sharded", chatty, "SigLIP: no class token, exact size", vision="siglip"),
    "llava-siglip-default": Kind(
        "qwen2", "sharded", chatty, "SigLIP with a patch cut for a class token", vision="siglip", strategy="default"
    ),
    "llava15-full": Kind("llama3", "sharded", chatty, "CLIP with its class token", strategy="full"),
}


@dataclass
class Drawn:
    """One case's structure, before its weights."""

    config: dict
    processor: dict  # the image processor's fields that differ from the model case
    patch: int
    prompt: str
    reduction: dict | None


def pick(rng, *choices):
    return choices[rng.integers(len(choices))]


def draw_vision(rng, kind: Kind) -> tuple[dict, dict, int]:
    """The tower's configuration, the processor's sizes and the patch."""
    heads, head_dim = pick(rng, 2, 3, 4, 12), pick(rng, 4, 8, 12)
    patch, grid = pick(rng, 7, 8, 14, 16), pick(rng, 3, 4, 5)
    if kind.patch:
        patch, grid = kind.patch, kind.edge // kind.patch
    shared = {
        "hidden_size": heads * head_dim,
        "num_attention_heads": heads,
        "num_hidden_layers": pick(rng, 3, 4, 5),
        "patch_size": patch,
    }
    edge = grid * patch
    if kind.vision == "dinov2":
        table = pick(rng, *[n for n in (2, 3, 4, 6) if n != grid])
        config = {**shared, "model_type": "dinov2", "image_size": table * patch, "mlp_ratio": pick(rng, 2, 3)}
        # DINOv2's own processor resizes to more than it crops.
        short = edge + pick(rng, 0, 5, 9)
        return config, {"size": {"shortest_edge": short}, "crop_size": {"height": edge, "width": edge}}, patch
    config = {**shared, "image_size": edge, "intermediate_size": heads * head_dim * 2 + pick(rng, 0, 4, 12)}
    if kind.vision == "siglip":
        config["model_type"] = "siglip_vision_model"
        return config, {"size": {"height": edge, "width": edge}}, patch
    config |= {"model_type": "clip_vision_model", "projection_dim": pick(rng, 32, 512)}
    if kind.tiles:
        shapes = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3), (2, 3), (1, 1)]
        chosen = sorted(rng.choice(len(shapes), size=rng.integers(3, 6), replace=False))
        pinpoints = [[shapes[i][0] * edge, shapes[i][1] * edge] for i in chosen]
        sizes = {"size": {"shortest_edge": edge}, "crop_size": {"height": edge, "width": edge}}
        return config, {**sizes, "image_grid_pinpoints": pinpoints}, patch
    if kind.layout == "legacy" and not kind.patch and rng.random() < 0.3:
        # CLIP's defaults, which a Hub config leaves out.
        patch, edge = 32, 224
        config |= {"patch_size": patch, "image_size": edge}
    return config, {"size": {"shortest_edge": edge}, "crop_size": {"height": edge, "width": edge}}, patch


def draw_text(rng, kind: Kind, image_token: int) -> dict:
    """The decoder's configuration."""
    kv, group = pick(rng, 1, 2, 3), pick(rng, 2, 3, 4)
    head_dim = pick(rng, 8, 10, 12, 16, 20)
    model_type = "llama" if kind.tower.startswith("llama") else kind.tower
    if kind.tower == "llama":
        kv, group = pick(rng, 2, 3, 4, 5), 1
    if kind.tower == "mistral" and rng.random() < 0.5:
        kv, group = 8, pick(rng, 1, 2)
    heads = kv * group
    hidden = heads * head_dim
    if kind.tower in ("llama3", "llama31", "mistral"):
        hidden = heads * pick(rng, *[n for n in (6, 8, 9, 12, 14) if n != head_dim])  # head_dim is free of it
    config = {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": pick(rng, 72, 88, 100, 128),
        "num_hidden_layers": pick(rng, 4, 5, 6, 7),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "max_position_embeddings": 4096,
        "rms_norm_eps": pick(rng, 1e-5, 1e-6),
        "vocab_size": (image_token // 64 + pick(rng, 1, 2)) * 64,
    }
    theta = {"llama": 10000.0, "mistral": pick(rng, 1e4, 1e6)}.get(kind.tower, pick(rng, 5e5, 1e6))
    if model_type != "qwen2":
        config["head_dim"] = head_dim
    if kind.tower == "llama" and rng.random() < 0.5:
        del config["head_dim"]
    if model_type == "mistral":
        config["sliding_window"] = None
    config["rope_parameters"] = {"rope_theta": theta, "rope_type": "default"}
    if kind.tower == "llama31":
        config["rope_parameters"] = {
            "rope_theta": theta,
            "rope_type": "llama3",
            "factor": pick(rng, 4.0, 8.0),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": pick(rng, 48, 64),
        }
    return config


def legacy_config(text: dict, vision: dict | None, image_token: int, feature_layer: int) -> dict:
    """As transformers 4 wrote it: fields equal to the default of their model type are left out."""
    from transformers import CLIPVisionConfig, LlamaConfig, MistralConfig

    text = dict(text)
    theta = text.pop("rope_parameters")["rope_theta"]
    defaults = {"llama": LlamaConfig, "mistral": MistralConfig}[text["model_type"]]().to_dict()
    defaults["rope_theta"] = 10000.0
    if text["model_type"] == "llama":
        defaults["num_key_value_heads"] = text["num_attention_heads"]
        defaults.pop("head_dim")
    text = {**text, "pad_token_id": 2, "rope_theta": theta}
    text = {k: v for k, v in text.items() if k == "model_type" or k not in defaults or defaults[k] != v}
    if vision is None:
        return {**text, "tie_word_embeddings": False, "transformers_version": "4.41.2", "torch_dtype": "float16"}
    defaults = CLIPVisionConfig().to_dict()
    vision = {k: v for k, v in vision.items() if k == "model_type" or k not in defaults or defaults[k] != v}
    return {
        "image_seq_length": 576,
        "image_token_index": image_token,
        "model_type": "llava",
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "text_config": text,
        "tie_word_embeddings": False,
        "vision_config": vision,
        "vision_feature_layer": feature_layer,
        "vision_feature_select_strategy": "default",
        "transformers_version": "4.41.2",
        "torch_dtype": "float16",
    }


def current_config(
    text: dict,
    vision: dict | None,
    image_token: int,
    feature_layer: int,
    strategy: str,
    tied: bool,
    pinpoints: list | None,
) -> dict:
    """As transformers 5 writes it: every field."""
    from transformers import AutoConfig, LlavaConfig, LlavaNextConfig

    text = {**text, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "tie_word_embeddings": tied}
    shared = {
        "text_config": text,
        "vision_config": vision,
        "image_token_index": image_token,
        "vision_feature_layer": feature_layer,
        "vision_feature_select_strategy": strategy,
        "tie_word_embeddings": tied,
    }
    if vision is None:
        config = AutoConfig.for_model(**text)
    elif pinpoints:
        config = LlavaNextConfig(**shared, image_grid_pinpoints=pinpoints)
    else:
        config = LlavaConfig(**shared)
    with tempfile.TemporaryDirectory() as where:
        config.save_pretrained(where)
        out = json.loads((Path(where) / "config.json").read_text())
    for part in (out, out.get("text_config", {}), out.get("vision_config", {})):
        for name in ("architectures", "dtype"):
            part.pop(name, None)
    return out


def draw(rng, kind: Kind, image_token: int) -> Drawn:
    vision, sizes, patch = draw_vision(rng, kind) if kind.vision else (None, {}, 0)
    text = draw_text(rng, kind, image_token)
    feature_layer = -2 if kind.registers or kind.vision != "clip" else pick(rng, -2, -2, -2, -3)
    strategy = kind.strategy or ("full" if kind.vision == "siglip" else "default")
    pinpoints = sizes.get("image_grid_pinpoints")
    if kind.layout == "legacy":
        config = legacy_config(text, vision, image_token, feature_layer)
        if pinpoints:
            config |= {"model_type": "llava_next", "image_grid_pinpoints": pinpoints}
    else:
        config = current_config(text, vision, image_token, feature_layer, strategy, kind.tied, pinpoints)
    reduction = None
    if kind.registers:
        layers = text["num_hidden_layers"]
        k = {"first": 1, "never": layers, "early": int(rng.integers(2, 4)), "any": int(rng.integers(1, layers))}[
            kind.drop
        ]
        reduction = {"type": "victor", "num_registers": int(pick(rng, *kind.registers)), "drop_layer": k}
        config["visual_token_reduction"] = reduction
    prompt = kind.prompt(pick(rng, *QUESTIONS), pick(rng, *SYSTEM) if kind.system else "")
    return Drawn(config, sizes, patch, prompt, reduction)


def draw_picture(rng, shape: str):
    """A picture of random size and mode: a gradient with rectangles and a little noise."""
    from PIL import Image

    height = int(np.exp(rng.uniform(np.log(24), np.log(420))))
    stretch = rng.uniform(-1.4, 1.4)
    stretch = {"portrait": -abs(stretch) - 0.1, "landscape": abs(stretch) + 0.1, "square": 0.0}.get(shape, stretch)
    width = max(12, min(640, int(height * np.exp(stretch))))
    y, x = np.mgrid[0:height, 0:width]
    y, x = y[..., None] / height, x[..., None] / width
    corners = rng.uniform(0, 255, (4, 3))
    pixels = corners[0] * (1 - y) * (1 - x) + corners[1] * (1 - y) * x + corners[2] * y * (1 - x) + corners[3] * y * x
    for _ in range(rng.integers(2, 7)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        bottom, right = top + rng.integers(1, height + 1), left + rng.integers(1, width + 1)
        pixels[top:bottom, left:right] = rng.uniform(0, 255, 3)
    pixels += rng.normal(0, rng.uniform(0, 25), pixels.shape)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    mode = pick(rng, "RGB", "RGB", "RGB", "L", "P")
    return image.quantize(64) if mode == "P" else image.convert(mode)


def draw_tensor(rng, name: str, shape, dtype):
    """Random weights of a size that keeps activations near one, attention uneven and logits apart."""
    import torch

    noise = torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))
    if name.endswith("bias"):
        value = noise * (0.4 if "language_model" in name else 0.1)
    elif "norm" in name or "layrnorm" in name:
        value = 1 + 0.2 * noise
    elif "lambda" in name:
        value = 0.8 + 0.2 * noise
    elif name == "lm_head.weight":
        value = noise * 5 / shape[-1] ** 0.5
    elif any(
        part in name
        for part in ("embed_tokens", "position_embedding", "class_embedding", "_token", "registers", "newline")
    ):
        value = noise * 0.8
    else:
        fan_in = int(np.prod(shape[1:]))
        value = noise * (1.5 if "attn" in name or "attention" in name else 1.3) / fan_in**0.5
    return value.to(dtype)


def current_to_hub(name: str) -> str:
    """The inverse of hub_to_current, for CLIP checkpoints."""
    for new, old in [
        ("lm_head.", "language_model.lm_head."),
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
        ("model.image_newline", "image_newline"),
    ]:
        if name.startswith(new):
            return old + name[len(new) :]
    return name


def write_weights(folder: Path, rng, kind: Kind, drawn: Drawn) -> None:
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        cls = model_class(config.model_type)
        model = cls.from_config(config) if config.model_type in TEXT_TYPES else cls(config)
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    if kind.tied:
        del shapes["lm_head.weight"]
    if drawn.reduction:
        shapes["visual_registers"] = (drawn.reduction["num_registers"], model.config.get_text_config().hidden_size)
    legacy = kind.layout == "legacy"
    dtype = torch.float16 if legacy else torch.bfloat16
    tensors = {name: draw_tensor(rng, name, shapes[name], dtype) for name in sorted(shapes)}
    for old in folder.glob("model*"):
        old.unlink()
    if legacy:
        if kind.vision:
            tensors = {current_to_hub(name): tensor for name, tensor in tensors.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, weight_map = sorted(tensors), {}
    half = len(names) // 2
    for number, part in enumerate([names[:half], names[half:]], 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= {name: file for name in part}
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def find_like(like: Path, kind: Kind) -> Path:
    """The model case whose tokenizer, template and processor a kind reuses: the same layout, and the same tower."""
    best = None
    for folder in sorted(like.iterdir()):
        if not (folder / "case.json").exists():
            continue
        case = json.loads((folder / "case.json").read_text())
        config = json.loads((folder / "config.json").read_text())
        tower = config.get("vision_config", {}).get("model_type", "")
        model_type = "llava_next" if kind.tiles else "llava"
        if case["layout"] == kind.layout and config["model_type"] == model_type and tower.startswith(kind.vision):
            if case["tower"] == kind.tower:
                return folder
            best = best or folder
    if best is None:
        raise SystemExit(f"no case like {kind.layout}/{kind.vision} in {like}")
    return best


def write_processor(folder: Path, like: Path, drawn: Drawn) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(like / name, folder / name)
    if drawn.patch == 0:
        return
    outer = json.loads((like / "processor_config.json").read_text())
    outer["patch_size"] = drawn.patch
    outer["vision_feature_select_strategy"] = drawn.config["vision_feature_select_strategy"]
    separate = like / "preprocessor_config.json"
    if separate.exists():
        inner = {**json.loads(separate.read_text()), **drawn.processor}
        (folder / separate.name).write_text(json.dumps(inner, indent=1))
    else:
        outer["image_processor"] = {**outer["image_processor"], **drawn.processor}
    (folder / "processor_config.json").write_text(json.dumps(outer, indent=1))


def judge(case: Reference, forbidden: set[int]) -> None:
    """Raises Rejected unless the case is a good one."""
    checks = case.checks
    for name, limit in [
        ("pixels", 1e-6),
        ("decoder", MAX_ROUNDING),
        ("uncached", 0),
        ("float64_ids", 0),
        ("rounding", MAX_ROUNDING),
    ]:
        if checks.get(name, 0) > limit:
            raise Rejected(f"{name} {checks[name]:.2g}")
    if len(case.ids) != STEPS or forbidden & set(case.ids):
        raise Rejected("stop or image token among the ids")
    if min(case.margins) < MIN_MARGIN:
        raise Rejected(f"margin {min(case.margins):.3f}")
    if len(set(case.ids)) < STEPS // 2:
        raise Rejected("the same ids over and over")
    for name, moved in checks["alternatives"].items():
        if moved < MIN_BITE:
            raise Rejected(f"{name} moves the logits by {moved:.1e} only")


def make_case(name: str, kind: Kind, seed: int, like: Path, out: Path, force: bool) -> tuple[Path, Reference, int]:
    origin = find_like(like, kind)
    model_case = json.loads((origin / "case.json").read_text())
    image_token, eos = model_case["image_token_id"], model_case["eos_token_id"]
    key = [seed, zlib.crc32(name.encode())]
    rng = np.random.default_rng(key)
    drawn = draw(rng, kind, image_token)
    full = name
    if drawn.reduction:
        full += "" if name.endswith("-k1") else f"-k{drawn.reduction['drop_layer']}"
        full += f"-m{drawn.reduction['num_registers']}"
    final = out / f"{full}-s{seed}"
    if final.exists() and not force:
        raise SystemExit(f"{final} exists; remove it or pass --force")

    work = out / f".{full}-s{seed}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "config.json").write_text(json.dumps(drawn.config, indent=1))
    write_processor(work, origin, drawn)
    images = [f"image{i + 1 if kind.images > 1 else ''}.png" for i in range(kind.images)]
    for number, image in enumerate(images):
        draw_picture(rng, kind.shapes[number] if kind.shapes else "").save(work / image)

    why = []
    for attempt in range(MAX_ATTEMPTS):
        write_weights(work, np.random.default_rng([*key, attempt]), kind, drawn)
        case = reference(work, images, drawn.prompt, drawn.reduction, thorough=True)
        try:
            judge(case, {eos, image_token})
        except Rejected as reason:
            why.append(str(reason))
            continue
        description = {
            "images": images,
            "prompt": drawn.prompt,
            "expected_ids": case.ids,
            "expected_text": case.text,
            "image_spans": case.spans,
            "reduction": drawn.reduction,
            "layout": kind.layout,
            "tower": kind.tower,
            "eos_token_id": eos,
            "image_token_id": image_token,
        }
        (work / "case.json").write_text(json.dumps(description, indent=1))
        save_file(case.stages, work / "expected.safetensors")
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)
        return final, case, attempt + 1
    shutil.rmtree(work)
    raise SystemExit(
        f"{name}: no good case in {MAX_ATTEMPTS} attempts; the last were rejected for: {'; '.join(why[-5:])}"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Commands


def case_folders(root: Path, patterns: list[str] | None) -> list[Path]:
    if (root / "case.json").exists():
        return [root]
    folders = sorted(p.parent for p in root.glob("*/case.json") if not p.parent.name.startswith("."))
    if patterns:
        folders = [f for f in folders if any(fnmatch.fnmatch(f.name, p) for p in patterns)]
    return folders


def print_table(results: list[dict], stages: list[str]) -> None:
    """One line a case; a column a stage."""
    short = {
        "pixel_values": "pixels",
        "vision_features": "vision",
        "inputs_embeds": "embeds",
        "logits_prefill": "prefill",
        "first_logits": "first",
        "input_ids": "input ids",
        "fastv_kept": "kept",
        "generated_ids": "ids",
    }
    width = max([len(r["case"]) for r in results] + [4])
    shown = [s for s in stages if any(row["stage"] == s for r in results for row in r["stages"])]
    print(f"{'case':{width}} " + " ".join(f"{short.get(s, s):>9}" for s in shown) + "  result")
    for r in results:
        cells = []
        for stage in shown:
            row = next((row for row in r["stages"] if row["stage"] == stage), None)
            if row is None:
                cells.append("–")
            elif row["relative_l2"] is not None:
                cells.append(f"{row['relative_l2']:.1e}{'' if row['ok'] else '!'}")
            else:
                cells.append(("equal" if stage in (*EXACT_STAGES, "generated_ids") else "ok") if row["ok"] else "FAIL")
        print(f"{r['case']:{width}} " + " ".join(f"{c:>9}" for c in cells) + f"  {r['result']}")


ALL_STAGES = ["input_ids", *FLOAT_STAGES, "fastv_kept", "generated_ids"]


def command_make(args) -> int:
    if args.list:
        for name, kind in KINDS.items():
            print(f"{name:22} {kind.layout:8} {kind.about}{' (only when named)' if kind.extra else ''}")
        return 0
    if not args.out or not args.like:
        print("make needs --out and --like", file=sys.stderr)
        return 2
    patterns = args.cases
    chosen = [
        n for n, k in KINDS.items() if (any(fnmatch.fnmatch(n, p) for p in patterns) if patterns else not k.extra)
    ]
    if not chosen:
        print("no such kind; see --list", file=sys.stderr)
        return 2
    setup_torch(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        folder, case, attempts = make_case(name, KINDS[name], args.seed, args.like, args.out, args.force)
        bite = min(case.checks["alternatives"].values(), default=float("nan"))
        print(
            f"{folder.name:32} rows {len(case.stages['input_ids']):4}  margin {min(case.margins):.3f}  float64 "
            f"{case.checks['rounding']:.1e}  own decoder {case.checks['decoder']:.1e}  least bite {bite:.1e}  "
            f"attempts {attempts}",
            flush=True,
        )
    return 0


def command_check(args) -> int:
    setup_torch(args.threads)
    folders = case_folders(args.cases, args.filter)
    if not folders:
        print(f"no cases in {args.cases}", file=sys.stderr)
        return 2
    results = []
    for folder in folders:
        case = json.loads((folder / "case.json").read_text())
        try:
            mine = reference(folder, case["images"], case["prompt"], case["reduction"])
        except Unsupported as why:
            results.append({"case": folder.name, "stages": [], "result": f"skipped: {why}"})
            continue
        except RuntimeError as why:
            results.append({"case": folder.name, "stages": [], "result": f"FAIL: {why}"})
            continue
        expected = load_file(folder / "expected.safetensors")
        rows = compare_stages(expected, mine.stages, case["expected_ids"], mine.ids, args.tolerance)
        good = all(r.ok for r in rows) and mine.text == case["expected_text"] and mine.spans == case["image_spans"]
        good = good and mine.checks["decoder"] <= args.tolerance and mine.checks.get("uncached", 0) == 0
        good = good and mine.checks.get("pixels", 0) <= 1e-6
        results.append(
            {
                "case": folder.name,
                "stages": [r.json() for r in rows],
                "result": "ok" if good else "FAIL",
                "own_decoder": mine.checks["decoder"],
                "least_margin": min(mine.margins),
                "text": mine.text == case["expected_text"],
                "spans": mine.spans == case["image_spans"],
                "pixels": mine.checks.get("pixels"),
            }
        )
    if args.json:
        print(json.dumps(results, indent=1))
    else:
        print_table(results, ALL_STAGES)
    return 1 if any(r["result"].startswith("FAIL") for r in results) else 0


def command_compare(args) -> int:
    rows = compare_trace(args.case, args.trace, args.tolerance)
    good = all(row.ok for row in rows)
    if args.json:
        print(
            json.dumps(
                {"case": args.case.name, "ok": good, "tolerance": args.tolerance, "stages": [r.json() for r in rows]},
                indent=1,
            )
        )
    else:
        print(f"{args.case.name}: {'ok' if good else 'FAIL'} (tolerance {args.tolerance:g})")
        print_rows(rows)
    return 0 if good else 1


def run_victor(args, folder: Path, trace: Path) -> tuple[str, float]:
    """Writes a trace; returns why it could not (empty: it could) and the seconds it took."""
    case = json.loads((folder / "case.json").read_text())
    command = [str(args.victor), "trace", "--model", str(folder)]
    for image in case["images"]:
        command += ["--image", str(folder / image)]
    command += ["--prompt", case["prompt"], "--max-new-tokens", str(len(case["expected_ids"]))]
    command += ["--device", args.device, "--out", str(trace), *args.victor_arg]
    started = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=args.timeout)
    except subprocess.TimeoutExpired:
        return f"no answer in {args.timeout} s", time.monotonic() - started
    except OSError as error:
        return str(error), time.monotonic() - started
    seconds = time.monotonic() - started
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()[-3:]
        return f"exit status {done.returncode}: {' / '.join(lines)}", seconds
    return ("" if trace.exists() else "wrote no trace"), seconds


def command_run(args) -> int:
    folders = case_folders(args.cases, args.filter)
    if not folders:
        print(f"no cases in {args.cases}", file=sys.stderr)
        return 2
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        keep = args.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        for folder in folders:
            trace = keep / f"{folder.name}.safetensors"
            trace.unlink(missing_ok=True)
            problem, seconds = run_victor(args, folder, trace)
            rows = []
            if not problem:
                try:
                    rows = compare_trace(folder, trace, args.tolerance)
                except Exception as error:
                    problem = f"unreadable trace: {error}"
            good = not problem and all(row.ok for row in rows)
            result = "ok" if good else "FAIL" + (f": {problem}" if problem else "")
            results.append(
                {
                    "case": folder.name,
                    "ok": good,
                    "problem": problem,
                    "seconds": round(seconds, 3),
                    "stages": [r.json() for r in rows],
                    "result": result,
                    "rows": rows,
                }
            )
    passed = sum(r["ok"] for r in results)
    if args.json:
        print(
            json.dumps(
                {
                    "passed": passed,
                    "of": len(results),
                    "tolerance": args.tolerance,
                    "device": args.device,
                    "cases": [{k: v for k, v in r.items() if k not in ("rows", "result")} for r in results],
                },
                indent=1,
            )
        )
    else:
        print_table(results, ALL_STAGES)
        for r in results:
            if not r["ok"] and r["rows"]:
                print(f"\n{r['case']}")
                print_rows(r["rows"])
        print(f"\n{passed} of {len(results)} cases agree within {args.tolerance:g} on {args.device}")
    return 0 if passed == len(results) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    make = commands.add_parser("make", help="make unseen cases")
    make.add_argument("--out", type=Path, help="folder to put the cases in")
    make.add_argument(
        "--like", type=Path, help="folder of model cases: tokenizers, templates and processors come from there"
    )
    make.add_argument("--seed", type=int, default=0)
    make.add_argument(
        "--cases", nargs="*", metavar="KIND", help="kinds to make, `*` allowed (default: all but the extra ones)"
    )
    make.add_argument("--list", action="store_true", help="name the kinds")
    make.add_argument("--force", action="store_true", help="replace cases that exist")
    make.set_defaults(run=command_make)

    check = commands.add_parser("check", help="recompute existing cases with this script's own reference")
    check.add_argument("--cases", type=Path, required=True, help="folder of cases, or one case")
    check.set_defaults(run=command_check)

    compare = commands.add_parser("compare", help="one trace against one case")
    compare.add_argument("case", type=Path)
    compare.add_argument("trace", type=Path)
    compare.set_defaults(run=command_compare)

    run = commands.add_parser("run", help="run `victor trace` on every case and compare")
    run.add_argument("--victor", type=Path, required=True, help="the binary")
    run.add_argument("--cases", type=Path, required=True, help="folder of cases, or one case")
    run.add_argument("--device", default="cpu")
    run.add_argument("--keep", type=Path, help="folder to keep the traces in")
    run.add_argument("--timeout", type=float, default=600, help="seconds a case may take")
    run.add_argument(
        "--victor-arg", action="append", default=[], help="a further word for `victor trace`: --victor-arg=--dtype=f32"
    )
    run.set_defaults(run=command_run)

    for sub in (make, check):
        sub.add_argument("--threads", type=int, default=1)
    for sub in (check, run):
        sub.add_argument("--filter", nargs="*", metavar="NAME", help="only these cases, `*` allowed")
    for sub in (check, compare, run):
        sub.add_argument(
            "--tolerance", type=float, default=TOLERANCE, help=f"largest relative L2 (default {TOLERANCE:g})"
        )
        sub.add_argument("--json", action="store_true")
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
