"""Make a `VisionLanguageModel`: an open_clip model by its name, or from a module in memory."""

import warnings
from collections.abc import Sequence

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import download_pretrained_from_hf
from torch import nn

from legrad.models import catalog
from legrad.models.definition import MINI, Definition, define
from legrad.models.published import PREPROCESSING, QUICK_GELU, as_published
from legrad.models.tokenizers import check_tokenizer, make_tokenizer
from legrad.models.vision_language import Tokenizer, VisionLanguageModel
from legrad.models.vision_model import PUBLISHED_LAYERS, Precision, check_precision
from legrad.models.weights import model_with_weights
from legrad.preprocess import Preprocess, ResizeMode
from legrad.settings import is_weights_uri
from legrad.towers import tower_of


def load_model(
    name: str,
    pretrained: str | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    resize: ResizeMode = "squash",
    tokenizer: str | None = None,
    tag: str | None = None,
) -> VisionLanguageModel:
    """Load a model by name.

    Args:
        name: open_clip's name of an architecture (``ViT-B-32``); ``mini``, the embedded model; a
            JSON file with open_clip's model config (path or URI); a folder, with or without
            ``local-dir:`` before it, that holds ``open_clip_config.json`` and weights, or a
            ``CLIPModel``, ``SiglipModel`` or ``Siglip2Model`` of the package transformers; or
            ``hf-hub:ORG/NAME``. Preprocessing and tokenizer come from the folder or repository.
        pretrained: an open_clip tag (``laion2b_s34b_b88k``; fetched from the hub), or a weights
            file at a path or any fsspec URI: ``.safetensors``, or ``.pt``/``.pth``/``.bin``, which
            are read with ``weights_only=True``. None for ``mini``, and for the weights that a
            folder or repository holds.
        image_size: input side, or (height, width), in pixels; default: the model's own. Any
            multiple of the patch works: positional embeddings are interpolated in each forward
            pass, and the module is not changed.
        device: torch device; default: CUDA if there is a GPU, else the CPU.
        precision: ``fp32``, or autocast to ``bf16`` / ``fp16``.
        resize: how an image is brought to the input size, see `Preprocess`.
        tokenizer: for models whose tokenizer is on the Hugging Face hub (SigLIP, CLIPA, ...): a
            folder that holds it, or another name on the hub. It is read with the first text.
        tag: the open_clip tag that a weights file was trained from. Its activation, mean, standard
            deviation and interpolation are taken; without it those that all tags of the name agree
            on, and open_clip's defaults where they differ.

    Warns:
        UserWarning: the tags of the name differ, or the model's file does not say how pixels are
            normalised, so that a default was taken.

    Raises:
        UnsupportedModelError: unknown name, or a vision tower of no supported family.
        FileNotFoundError: the weights file does not exist.
        ValueError: ``image_size``, ``precision``, ``pretrained``, ``tokenizer`` or ``tag`` is
            invalid, the model's file, folder or repository cannot be read, or the weights do not
            fit the model.
    """
    check_precision(precision)
    definition, notes = as_published(define(name), pretrained, tag)
    arch = catalog.architecture(name)
    check_tokenizer(name, tokenizer)
    size = checked_size(image_size, arch.image_size, arch.patch_size)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if name == MINI:
        if pretrained is not None:
            raise ValueError(f"pretrained={pretrained!r}: the mini model has its own weights")
        return _load_mini(size, target, precision, resize)
    module = _create(definition, pretrained)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    config = {**PREPROCESSING, **definition.preprocessing}
    return VisionLanguageModel(
        name=name,
        pretrained=pretrained,
        model=module.eval().to(target),
        preprocess=Preprocess(size, resize, config["interpolation"], fill(config["mean"])),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        precision=precision,
        make_tokenizer=lambda: make_tokenizer(name, tokenizer),
    )


def from_open_clip(
    module: nn.Module,
    *,
    tokenizer: Tokenizer | None = None,
    name: str = "custom",
    image_size: int | tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    mean: tuple[float, float, float] = OPENAI_DATASET_MEAN,
    std: tuple[float, float, float] = OPENAI_DATASET_STD,
) -> VisionLanguageModel:
    """Wrap an open_clip module that is already in memory, such as a fine-tuned one.

    Args:
        module: with a vision tower ``module.visual`` of a supported family.
        tokenizer: default: CLIP's.
        name: used in messages and metadata.
        image_size: input side, or (height, width), in pixels; default: the tower's own.
        device: where to move the module; default: it stays where it is.
        precision: ``fp32``, or autocast to ``bf16`` / ``fp16``.
        mean: mean of each channel, in units of [0, 1] pixels; default: CLIP's.
        std: standard deviation of each channel, in the same units; default: CLIP's.

    Raises:
        UnsupportedModelError: its vision tower is of no supported family.
        ValueError: ``image_size`` is not a multiple of the patch, or ``precision`` is unknown.
    """
    check_precision(precision)
    visual = module.get_submodule("visual")
    tower = tower_of(visual)
    size = checked_size(image_size, tower.native_size, tower.patch_size)
    return VisionLanguageModel(
        name=name,
        pretrained=None,
        model=module if device is None else module.to(device),
        preprocess=Preprocess(size, fill=fill(mean)),
        mean=mean,
        std=std,
        precision=precision,
        make_tokenizer=(lambda: tokenizer) if tokenizer else open_clip.SimpleTokenizer,
        default_layers=min(PUBLISHED_LAYERS, len(tower.blocks)),
    )


def _load_mini(
    size: tuple[int, int], device: torch.device, precision: Precision, resize: ResizeMode
) -> VisionLanguageModel:
    from legrad.mini import loader  # other models do not need it

    mini = loader.load()
    return VisionLanguageModel(
        name=MINI,
        pretrained=None,
        model=mini.model.to(device),
        preprocess=Preprocess(size, resize),
        precision=precision,
        default_layers=mini.default_layers,
        known_tokens=mini.known_tokens,
        make_tokenizer=lambda: mini.tokenizer,
    )


def _create(definition: Definition, pretrained: str | None) -> nn.Module:
    """The open_clip module on the CPU, weights loaded."""
    name = definition.name
    if pretrained is None and definition.holds_weights:
        return model_with_weights(definition, _weights_within(definition))
    if pretrained is None:
        raise ValueError(
            f"model {name!r} needs pretrained=: {_example_tag(definition)}a weights file"
        )
    if is_weights_uri(pretrained):
        return model_with_weights(definition, [pretrained])
    tagged: nn.Module = open_clip.create_model(
        name,
        pretrained=pretrained,
        device="cpu",
        force_quick_gelu=definition.config[QUICK_GELU],
    )
    return tagged


def _weights_within(definition: Definition) -> list[str]:
    """The weights in the model's folder, or fetched from its repository on the hub."""
    if definition.repository is None:
        return [str(path) for path in definition.weights_files()]
    try:
        return [str(download_pretrained_from_hf(definition.repository))]
    except FileNotFoundError as error:
        raise ValueError(f"model {definition.name}: its weights cannot be read: {error}") from error


def fill(mean: Sequence[float]) -> tuple[int, int, int]:
    """The RGB (0 to 255) that normalises to zero."""
    red, green, blue = (round(255 * value) for value in mean)
    return red, green, blue


def _example_tag(definition: Definition) -> str:
    tags = open_clip.list_pretrained_tags_by_model(definition.name)
    return f"an open_clip tag such as {tags[-1]!r}, or " if tags else ""


def checked_size(
    wanted: int | tuple[int, int] | None, native: tuple[int, int], patch: tuple[int, int]
) -> tuple[int, int]:
    """(height, width) of the input, the native one unless another is wanted.

    Raises:
        ValueError: a side is not a multiple of the patch.
    """
    size = native if wanted is None else (wanted, wanted) if isinstance(wanted, int) else wanted
    if any(side <= 0 or side % p for side, p in zip(size, patch, strict=True)):
        raise ValueError(
            f"image_size {size[0]} x {size[1]}: expected multiples of the patch, "
            f"{patch[0]} x {patch[1]} pixels"
        )
    return size
