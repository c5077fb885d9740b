"""The embedded mini CLIP and the drawn world it was trained on.

``python -m training.train`` writes the model's four files into this folder.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
CARD = "card.json"
