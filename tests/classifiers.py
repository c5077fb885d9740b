"""A classifier that is trained in seconds: the mini model's tower with a linear head on labels."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from legrad import from_timm, load_model
from pipeline.results import Results

BLOCK = {
    "ln_1": "norm1", "ln_2": "norm2", "attn.out_proj": "attn.proj", "attn.in_proj_": "attn.qkv.",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
BASE = "vit_tiny_patch16_224"
SIZES: dict[str, Any] = {
    "img_size": 96, "patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4, "pre_norm": True
}  # fmt: skip
DATA = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "crop_pct": 1.0,
    "crop_mode": "squash",
}


def mini_tower(classes: int, pool: str = "token") -> Any:
    """The mini model's vision tower as a module of timm, with a head of zeros."""
    visual: Any = load_model("mini", device="cpu").model.get_submodule("visual")
    module: Any = timm.create_model(
        BASE, num_classes=classes, pretrained_cfg_overlay=dict(DATA), global_pool=pool, **SIZES
    )
    norm = "norm" if pool == "token" else "fc_norm"
    state: dict[str, Tensor] = {
        "cls_token": visual.class_embedding[None, None],
        "pos_embed": visual.positional_embedding[None],
        "patch_embed.proj.weight": visual.conv1.weight,
        "head.weight": torch.zeros(classes, module.embed_dim),
        "head.bias": torch.zeros(classes),
    }
    for old, new in (("ln_pre", "norm_pre"), ("ln_post", norm)):
        for part in ("weight", "bias"):
            state[f"{new}.{part}"] = visual.get_parameter(f"{old}.{part}")
    for key, value in visual.transformer.resblocks.state_dict().items():
        number, _, name = key.partition(".")
        for old, new in BLOCK.items():
            name = name.replace(old, new)
        state[f"blocks.{number}.{name}"] = value
    module.load_state_dict(state)
    return module.eval()


def fitted_classifier(results: Results, folder: Path) -> str:
    """Fit the head to the labels of a run's images, and write a folder as timm does."""
    rows = results.images(["label"], where="status = 'ok' and label is not null")
    names = sorted(rows["label"].unique())
    module = mini_tower(len(names))
    labels = np.array([names.index(label) for label in rows["label"]])
    fitted = LogisticRegression(C=10, max_iter=1000).fit(
        _features(module, results, list(rows.index)), labels
    )
    with torch.no_grad():
        module.head.weight.copy_(torch.from_numpy(fitted.coef_))
        module.head.bias.copy_(torch.from_numpy(fitted.intercept_))
    save_classifier(module, names, folder)
    return str(folder)


def save_classifier(module: Any, names: Sequence[str], folder: Path) -> None:
    """Write a folder as timm does."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"architecture": BASE, "num_classes": len(names), "label_names": list(names)}
    about |= {"model_args": SIZES, "pretrained_cfg": DATA}
    (folder / "config.json").write_text(json.dumps(about))
    save_file(module.state_dict(), folder / "model.safetensors")


def _features(module: Any, results: Results, ids: Sequence[str]) -> np.ndarray:
    classifier = from_timm(module)
    parts = []
    for start in range(0, len(ids), 64):
        pixels = [classifier.preprocess(results.image(name)) for name in ids[start : start + 64]]
        parts.append(classifier.encode_image(torch.from_numpy(np.stack(pixels))).numpy())
    return np.concatenate(parts)
