"""Make a `Classifier`: by timm's name and a checkpoint, from a folder, or from Python code."""

import difflib
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn

from legrad.errors import UnsupportedModelError
from legrad.models import transformers_classifier
from legrad.models.checkpoints import Names, load_into, names_from, read_checkpoint, read_names
from legrad.models.classifier import Classifier, check_logits, linear_head
from legrad.models.definition import FOLDER_PREFIX
from legrad.models.load import checked_size, fill
from legrad.models.transformers_folder import CONFIG
from legrad.models.vision_model import PUBLISHED_LAYERS, Precision, check_precision
from legrad.preprocess import Preprocess, ResizeMode
from legrad.towers import tower_of

_CROPS: dict[str, ResizeMode] = {"center": "center_crop", "squash": "squash"}
_FOLDER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class _Made:
    """A module with its weights, and what came with them.

    Attributes:
        module: the module, on the CPU.
        data: input size, mean, std, interpolation, crop_pct and crop_mode, as timm names them; the
            first only if it is not the module's own.
        classes: names of the classes, if they are known.
    """

    module: Any
    data: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None


def load_classifier(
    name: str,
    checkpoint: str | None = None,
    *,
    num_classes: int | None = None,
    classes: Names | None = None,
    image_size: int | tuple[int, int] | None = None,
    resize: ResizeMode | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
) -> Classifier:
    """Load an image classifier: a ViT with a linear class head.

    Args:
        name: timm's name of an architecture (``vit_base_patch16_224``, ``deit3_small_patch16_224``,
            ``vit_small_patch14_reg4_dinov2``, ...); a folder that timm saved, or that the package
            transformers saved from ``ViTForImageClassification``, ``DeiTForImageClassification`` or
            ``SiglipForImageClassification``; or ``module:function``, a function without arguments
            that returns a module of timm, imported from the current directory or the environment.
        checkpoint: weights file (path or URI) as a training script saves it, see
            `legrad.models.checkpoints.read_checkpoint`. None: timm's published weights for a name,
            those in the folder, or those of the function's module.
        num_classes: number of classes; default: the size of the checkpoint's class head.
        classes: names of the classes in the order of the logits, see
            `legrad.models.checkpoints.read_names`; default: those in the checkpoint or folder, else
            the numbers from 0.
        image_size: input side, or (height, width), in pixels; default: the model's own.
        resize: how an image is brought to the input size, see `Preprocess`; default: as the
            model's data settings say.
        device: torch device; default: CUDA if there is a GPU, else the CPU.
        precision: ``fp32``, or autocast to ``bf16`` / ``fp16``.

    Raises:
        UnsupportedModelError: unknown name, or a module that no family of `legrad.towers` covers.
        FileNotFoundError: a file does not exist.
        ValueError: an argument is invalid, or the weights do not fit the model.
    """
    check_precision(precision)
    if _is_function(name):
        made = _from_function(name, checkpoint)
    elif name.startswith(FOLDER_PREFIX) or Path(name).expanduser().is_dir():
        made = _from_folder(name, checkpoint)
    else:
        made = _from_timm_name(name, checkpoint, num_classes)
    made.module.eval()
    if num_classes is not None and linear_head(made.module).out_features != num_classes:
        raise ValueError(
            f"num_classes={num_classes}: {name} has {linear_head(made.module).out_features}"
        )
    names = made.classes if classes is None else read_names(classes)
    classifier = _classifier(made, names, name, image_size, resize)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    made.module.to(target)
    classifier = replace(classifier, pretrained=checkpoint, precision=precision)
    check_logits(classifier)
    return classifier


def from_timm(
    module: nn.Module,
    *,
    classes: Names | None = None,
    name: str = "custom",
    image_size: int | tuple[int, int] | None = None,
    resize: ResizeMode | None = None,
    data_config: Mapping[str, Any] | None = None,
) -> Classifier:
    """Wrap a classifier of timm that is already in memory, in evaluation mode.

    Args:
        module: a ViT of timm, also within ``DataParallel`` or ``torch.compile``.
        classes: see `load_classifier`.
        name: used in messages and metadata.
        image_size: input side, or (height, width), in pixels; default: the module's own.
        resize: see `load_classifier`.
        data_config: timm's data settings where they differ from the module's ``pretrained_cfg``:
            ``mean``, ``std``, ``interpolation``, ``crop_pct``, ``crop_mode``.

    Raises:
        UnsupportedModelError: no family of `legrad.towers` covers it.
        ValueError: it is in training mode, or an argument is invalid.
    """
    made = _Made(_unwrapped(module), dict(data_config or {}))
    names = None if classes is None else read_names(classes)
    classifier = _classifier(made, names, name, image_size, resize)
    check_logits(classifier)
    return classifier


def _classifier(
    made: _Made,
    names: tuple[str, ...] | None,
    name: str,
    image_size: int | tuple[int, int] | None,
    resize: ResizeMode | None,
) -> Classifier:
    count = linear_head(made.module).out_features
    if names is not None and len(names) != count:
        raise ValueError(f"classes: {name} has {count} classes, found {len(names)} names")
    tower = tower_of(made.module)
    data = resolve_data_config(dict(made.data), model=made.module)  # type: ignore[no-untyped-call]
    has_size = any(made.data.get(key) for key in ("img_size", "input_size"))
    native = tuple(data["input_size"][1:]) if has_size else tower.native_size
    mode, crop = resize or _mode(data["crop_mode"]), data["crop_pct"] if resize is None else 1.0
    mean, std = tuple(map(float, data["mean"])), tuple(map(float, data["std"]))
    size = checked_size(image_size, native, tower.patch_size)
    interpolation = data["interpolation"]
    if interpolation not in ("bilinear", "bicubic"):
        warnings.warn(f"{name}: interpolation {interpolation!r} is taken as bicubic", stacklevel=3)
        interpolation = "bicubic"
    return Classifier(
        name=name,
        pretrained=None,
        model=made.module,
        preprocess=Preprocess(size, mode, interpolation, fill(mean), crop),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        default_layers=min(PUBLISHED_LAYERS, len(tower.blocks)),
        classes=names or tuple(map(str, range(count))),
    )


def _mode(crop_mode: str) -> ResizeMode:
    if crop_mode not in _CROPS:
        raise ValueError(
            f"the model's crop_mode is {crop_mode!r}: give resize=, one of squash, center_crop, pad"
        )
    return _CROPS[crop_mode]


def _from_timm_name(name: str, checkpoint: str | None, num_classes: int | None) -> _Made:
    if not timm.is_model(name):
        plain = name.split(".", maxsplit=1)[0].rsplit("/", maxsplit=1)[-1]
        near = difflib.get_close_matches(
            plain.lower(), timm.list_models("*vit*") + timm.list_models("eva*")
        )
        raise UnsupportedModelError(
            f"no classifier is called {name!r}: expected timm's name of a ViT"
            + (f" (did you mean {', '.join(near)}?)" if near else "")
            + ", a folder, or module:function"
        )
    if checkpoint is None:
        return _published(name)
    content = read_checkpoint(checkpoint)
    head = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if head is None or not isinstance(head.classifier, str):
        raise UnsupportedModelError(f"{name} has no single class head")
    count = num_classes or content.count(head.classifier)
    if count is None:
        raise ValueError(
            f"weights {checkpoint}: they have no class head ({head.classifier}.weight): they are "
            "of a backbone alone, or of another model"
        )
    module = timm.create_model(name, num_classes=count)
    load_into(module, content)
    return _Made(module, content.settings, content.classes)


def _published(name: str) -> _Made:
    try:
        module = timm.create_model(name, pretrained=True)
    except Exception as error:  # clients of the hub raise anything
        raise ValueError(
            f"{name}: timm's published weights cannot be read ({str(error).splitlines()[0]}); give "
            "a weights file as checkpoint"
        ) from error
    subset = infer_imagenet_subset(module)
    if subset is None:
        return _Made(module)
    about = ImageNetInfo(subset)
    names = [about.index_to_description(index) for index in range(linear_head(module).out_features)]
    return _Made(module, classes=tuple(names) if len(set(names)) == len(names) else None)


def _from_folder(name: str, checkpoint: str | None) -> _Made:
    folder = Path(name.removeprefix(FOLDER_PREFIX)).expanduser()
    if not (folder / CONFIG).is_file():
        raise ValueError(f"classifier {name}: expected {CONFIG} in the folder")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    files = [folder / file for file in _FOLDER_WEIGHTS if (folder / file).is_file()]
    if checkpoint is None and not files:
        raise ValueError(
            f"classifier {name}: expected {' or '.join(_FOLDER_WEIGHTS)} in the folder"
        )
    weights = read_checkpoint(checkpoint or str(files[0]))
    if "architecture" in config:  # timm's form
        sizes = config.get("model_args", {}) | {"num_classes": config["num_classes"]}
        about = config.get("pretrained_cfg", {})
        module = timm.create_model(config["architecture"], pretrained_cfg_overlay=about, **sizes)
        load_into(module, weights)
        names = config.get("label_names")
        return _Made(module, classes=names_from(names, CONFIG) if names else None)
    module = transformers_classifier.build(name, config)
    tensors = transformers_classifier.renamed(config["model_type"], weights.tensors)
    load_into(module, replace(weights, tensors=tensors))
    names, data = config.get("id2label"), transformers_classifier.data_config(config, folder)
    return _Made(module, data, names_from(names, CONFIG) if names else None)


def _is_function(name: str) -> bool:
    module, _, function = name.partition(":")
    return function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _from_function(name: str, checkpoint: str | None) -> _Made:
    path, _, function = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    invalidate_caches()  # the folder may be younger than sys.path
    try:
        module = getattr(import_module(path), function)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(
            f"classifier {name}: expected a function without arguments in an importable module: "
            f"{type(error).__name__}: {error}. The workers of a run find installed packages, and "
            'modules in PYTHONPATH: PYTHONPATH="$PWD" legrad run ...'
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"classifier {name}: it returned a {type(module).__name__}, not a module")
    module = _unwrapped(module)
    if checkpoint is None:
        return _Made(module)
    content = read_checkpoint(checkpoint)
    load_into(module, content)
    return _Made(module, content.settings, content.classes)


def _unwrapped(module: Any) -> Any:
    """The module within `DataParallel` or `torch.compile`."""
    for name in ("module", "_orig_mod"):
        module = getattr(module, name, module)
    return module
