"""The embedded mini CLIP and the drawn world it was trained on.

``python -m training.train --out legrad/mini`` writes the model's four files.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
CARD = "card.json"
