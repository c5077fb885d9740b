"""Errors of the method, each with what was expected, what was found and what to do."""


class UnsupportedModelError(ValueError):
    """The model has no vision tower that LeGrad is implemented for."""


SUPPORTED_TOWERS = (
    "supported are open_clip's own VisionTransformer towers with class-token or average pooling "
    "(ViT-B-32, ViT-B-16, ViT-L-14, ViT-H-14, ViT-g-14, ViT-bigG-14, ..., CLIPA), and 'mini'"
)
