"""The published package, ``legrad_torch``: installed beside us, run in another process."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PACKAGES = ("legrad_torch==1.1", "open_clip_torch==2.23.0")
NEEDS = ("einops", "opencv-python-headless")
"""What these two import and we do not have; torch, torchvision and timm are shared with us."""
FOLDER = Path("build/published")


@dataclass(frozen=True)
class Published:
    """What the published package came to.

    Attributes:
        maps: (B, Q, height, width), min-max normalised, as it returns them.
        seconds: seconds per image by number of queries.
    """

    maps: Tensor
    seconds: dict[int, float]


def install(folder: Path = FOLDER) -> Path:
    """Install the package into a folder of its own, once."""
    if not (folder / "legrad").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--target", str(folder), *PACKAGES, *NEEDS], check=True)
    return folder.resolve()


def run_published(
    module: nn.Module,
    name: str,
    pixels: Tensor,
    directions: Tensor,
    *,
    layers: int,
    equality: int,
    queries: list[int],
    rounds: int,
) -> Published:
    """Explain the same images with the same weights.

    Args:
        module: an open_clip model of ours.
        pixels: (B, 3, height, width) floats, on the device that the package is to use.
        equality: so many of the directions for the maps, all images.
        queries: numbers of directions to time, on the first image.
    """
    site = install()
    worker = Path(__file__).with_name("published_worker.py").resolve()
    with tempfile.TemporaryDirectory() as folder:
        places = {part: f"{folder}/{part}.pt" for part in ("inputs", "output")}
        weights = module.state_dict()
        torch.save(
            {"weights": weights, "pixels": pixels, "directions": directions}, places["inputs"]
        )
        job: dict[str, object] = {"model": name, "layers": layers, "equality": equality}
        job |= {"queries": queries, "rounds": rounds, "threads": torch.get_num_threads()}
        job |= places
        Path(folder, "job.json").write_text(json.dumps(job))
        command = [sys.executable, str(worker), f"{folder}/job.json"]
        environment = os.environ | {"PYTHONPATH": str(site)}
        subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        found = torch.load(places["output"])
    return Published(found["maps"], found["seconds"])


def as_published(maps: Tensor, patch: int) -> Tensor:
    """Our maps (B, Q, h, w) shown as the package shows its own: upsampled, then min-max."""
    shown = F.interpolate(maps, scale_factor=patch, mode="bilinear")
    low, high = shown.amin(dim=(2, 3), keepdim=True), shown.amax(dim=(2, 3), keepdim=True)
    return (shown - low) / (high - low)
