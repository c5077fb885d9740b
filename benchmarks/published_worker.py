"""Runs the published package in a process of its own: ``published_worker.py JOB.json``.

``legrad`` and ``open_clip`` are the published ones here, found through PYTHONPATH.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import open_clip
import torch

from legrad import LeWrapper


def main() -> None:
    """Explain the job's images one at a time; write maps and seconds."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    inputs = torch.load(job["inputs"])
    module = open_clip.create_model(job["model"], pretrained=None)
    missing = module.load_state_dict(inputs["weights"], strict=False).missing_keys
    if missing:
        raise ValueError(f"weights are missing: {missing}")
    pixels, device = inputs["pixels"], inputs["pixels"].device
    model = LeWrapper(module.eval().to(device), layer_index=-job["layers"])
    directions = inputs["directions"].to(device)
    maps = [model.compute_legrad(directions[: job["equality"]], image[None]) for image in pixels]
    times = {}
    for count in job["queries"]:
        rounds = []
        for _ in range(job["rounds"] + 1):
            start = time.perf_counter()
            model.compute_legrad(directions[:count], pixels[:1])
            if device.type == "cuda":
                torch.cuda.synchronize()
            rounds.append(time.perf_counter() - start)
        times[count] = statistics.median(rounds[1:])
    torch.save({"maps": torch.cat(maps).detach().cpu(), "seconds": times}, job["output"])


if __name__ == "__main__":
    main()
