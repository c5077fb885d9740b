"""The error for unsupported models, and the list of supported towers."""


class UnsupportedModelError(ValueError):
    """The model has no vision tower that LeGrad is implemented for."""


SUPPORTED_TOWERS = (
    "supported are transformers with attention over all their tokens: open_clip's ViT (ViT-B-32, "
    "ViT-L-14, ViT-bigG-14, ..., CLIPA, CoCa), SigLIP, SigLIP 2, PE-Core, EVA, EVA02, MobileCLIP-B "
    "and -L, and 'mini'; `legrad models` lists them"
)
