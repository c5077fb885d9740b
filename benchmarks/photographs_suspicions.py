"""Suspicions on many plantings: embeddings of photographs suffice, no run is needed."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.photographs_model import ARCHITECTURE, SIDE, WEIGHTS
from benchmarks.photographs_sets import Planting
from benchmarks.photographs_world import Photographs
from pipeline.audit.inference import Array
from pipeline.audit.suspicion import TextFigures, class_shifts, likeness, suspect
from pipeline.audit.vocabulary import distinct_rows, vocabulary
from training.captions import named
from training.objective import normalised


class Embedder:
    """The trained model, without the pipeline."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / ARCHITECTURE).read_text())["model_cfg"]
        self._model = open_clip.CLIP(**config).eval()
        weights = load_file(folder / WEIGHTS)
        self._model.load_state_dict({name: t.float() for name, t in weights.items()})
        length = config["text_cfg"]["context_length"]
        self._tokenizer = open_clip.SimpleTokenizer(context_length=length)

    @torch.inference_mode()
    def texts(self, phrases: list[str]) -> Array:
        """(T, E) unit features."""
        features: Tensor = self._model.encode_text(self._tokenizer(phrases), normalize=True)
        return features.double().numpy()

    @torch.inference_mode()
    def images(self, pictures: list[Image.Image]) -> Array:
        """(N, E) unit features."""
        parts = []
        for start in range(0, len(pictures), 250):
            small = [
                np.asarray(p.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
                for p in pictures[start : start + 250]
            ]
            pixels = normalised(torch.from_numpy(np.stack(small)))
            parts.append(self._model.encode_image(pixels, normalize=True))
        return torch.cat(parts).double().numpy()


def suspicions(embedder: Embedder, planting: Planting, photographs: Photographs) -> pd.DataFrame:
    """One row per class and cue that the photographs have.

    Returns:
        Columns class, cue, effect, rank (among the cues), ``above`` (words of the vocabulary with a
        larger effect in the class) and ``planted`` (share; NaN where it is not planted).
    """
    classes = photographs.classes
    pictures = [
        planting.image(row, pixels, classes[code])[0]
        for row, (pixels, code) in enumerate(
            zip(photographs.pixels, photographs.labels, strict=True)
        )
    ]
    images = embedder.images(pictures)
    counts = np.bincount(photographs.labels, minlength=len(classes)).astype(float)
    sums = np.zeros((len(classes), images.shape[1]))
    np.add.at(sums, photographs.labels, images)
    means = sums / counts[:, None]
    within = images - means[photographs.labels]
    covariances = np.stack(
        [np.cov(within[photographs.labels == code].T, bias=True) for code in range(len(classes))]
    )
    covariance = within.T @ within / (len(images) - len(classes))
    cue_texts = [named(cue) for cue in planting.cues]
    words = embedder.texts([word for word in vocabulary() if word not in cue_texts])
    words = words[distinct_rows(words)]
    texts, cues = embedder.texts([named(name) for name in classes]), embedder.texts(cue_texts)
    of_words, of_cues = (
        TextFigures(
            class_shifts(counts, means, covariance, directions),
            np.log(np.einsum("te,kef,tf->kt", directions, covariances, directions)),
            likeness(texts, directions),
        )
        for directions in (words, cues)
    )
    suspicion, usual = suspect(of_cues, of_words), suspect(of_words, of_words)
    above = (usual.effect[:, None, :] > suspicion.effect[:, :, None]).sum(axis=2)
    planted = {(host, cue): share for cue, (host, share) in planting.planted.items()}
    rows = [
        (planting.seed, cls, cue, suspicion.effect[i, j], suspicion.rank[i, j], above[i, j])
        for i, cls in enumerate(classes)
        for j, cue in enumerate(planting.cues)
    ]
    frame = pd.DataFrame(rows, columns=["seed", "class", "cue", "effect", "rank", "above"])
    keys = frame[["class", "cue"]].itertuples(index=False, name=None)
    return frame.assign(planted=[planted.get(key, np.nan) for key in keys])
