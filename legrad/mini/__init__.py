"""The embedded mini CLIP and the drawn world it was trained on."""
