"""Models: which exist, how they are loaded (open_clip's, and classifiers of timm), tokenizers."""
