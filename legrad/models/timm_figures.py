"""Facts about the timm transformers in open_clip models, so that checking settings needs no torch.

open_clip's configs give only their names; the plain ViTs are in configs that people publish
(BiomedCLIP). A test builds every one and compares.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Trunk:
    """A timm transformer that a family of `legrad.towers` covers.

    Attributes:
        family: see `Architecture.family`.
        patch: side of a patch in pixels.
        layers: number of blocks.
        width: width of the tokens.
        parameters: number of parameters, without a linear head.
    """

    family: str
    patch: int
    layers: int
    width: int
    parameters: int


TRUNKS = {
    "eva02_base_patch16_clip_224": Trunk("EVA", 16, 12, 768, 85_869_312),
    "eva02_enormous_patch14_clip_224": Trunk("EVA", 14, 64, 1792, 4_348_720_896),
    "eva02_large_patch14_clip_224": Trunk("EVA", 14, 24, 1024, 303_317_952),
    "eva02_large_patch14_clip_336": Trunk("EVA", 14, 24, 1024, 303_645_632),
    "eva_giant_patch14_224": Trunk("EVA", 14, 40, 1408, 1_011_146_112),
    "vit_base_mci_224": Trunk("MobileCLIP", 16, 12, 768, 85_955_328),
    "vit_base_patch16_224": Trunk("ViT", 16, 12, 768, 85_798_656),
    "vit_base_patch16_384": Trunk("ViT", 16, 12, 768, 86_090_496),
    "vit_base_patch16_clip_224": Trunk("ViT", 16, 12, 768, 85_799_424),
    "vit_base_patch16_siglip_224": Trunk("SigLIP", 16, 12, 768, 92_884_224),
    "vit_base_patch16_siglip_256": Trunk("SigLIP", 16, 12, 768, 92_930_304),
    "vit_base_patch16_siglip_384": Trunk("SigLIP", 16, 12, 768, 93_176_064),
    "vit_base_patch16_siglip_512": Trunk("SigLIP", 16, 12, 768, 93_520_128),
    "vit_base_patch32_224": Trunk("ViT", 32, 12, 768, 87_455_232),
    "vit_base_patch32_siglip_256": Trunk("SigLIP", 32, 12, 768, 94_552_320),
    "vit_giantopt_patch16_siglip_256": Trunk("SigLIP", 16, 40, 1536, 1_163_168_256),
    "vit_giantopt_patch16_siglip_384": Trunk("SigLIP", 16, 40, 1536, 1_163_659_776),
    "vit_large_patch14_clip_224": Trunk("MobileCLIP", 14, 24, 1024, 303_179_776),
    "vit_large_patch16_224": Trunk("ViT", 16, 24, 1024, 303_301_632),
    "vit_large_patch16_siglip_256": Trunk("SigLIP", 16, 24, 1024, 315_956_224),
    "vit_large_patch16_siglip_384": Trunk("SigLIP", 16, 24, 1024, 316_283_904),
    "vit_large_patch16_siglip_512": Trunk("SigLIP", 16, 24, 1024, 316_742_656),
    "vit_medium_patch16_gap_256": Trunk("ViT", 16, 12, 512, 38_348_288),
    "vit_pe_core_base_patch16_224": Trunk("PE-Core", 16, 12, 768, 92_886_528),
    "vit_pe_core_gigantic_patch14_448": Trunk("PE-Core", 14, 50, 1536, 1_880_066_560),
    "vit_pe_core_large_patch14_336": Trunk("PE-Core", 14, 24, 1024, 316_102_656),
    "vit_pe_core_small_patch16_384": Trunk("PE-Core", 16, 12, 384, 23_586_048),
    "vit_pe_core_tiny_patch16_384": Trunk("PE-Core", 16, 12, 192, 6_042_240),
    "vit_relpos_medium_patch16_cls_224": Trunk("ViT", 16, 12, 512, 38_251_616),
    "vit_small_patch16_224": Trunk("ViT", 16, 12, 384, 21_665_664),
    "vit_so400m_patch14_siglip_224": Trunk("SigLIP", 14, 27, 1152, 427_680_704),
    "vit_so400m_patch14_siglip_378": Trunk("SigLIP", 14, 27, 1152, 428_225_600),
    "vit_so400m_patch14_siglip_384": Trunk("SigLIP", 14, 27, 1152, 428_225_600),
    "vit_so400m_patch16_siglip_256": Trunk("SigLIP", 16, 27, 1152, 427_888_064),
    "vit_so400m_patch16_siglip_384": Trunk("SigLIP", 16, 27, 1152, 428_256_704),
    "vit_so400m_patch16_siglip_512": Trunk("SigLIP", 16, 27, 1152, 428_772_800),
    "vit_tiny_patch16_224": Trunk("ViT", 16, 12, 192, 5_524_416),
}

WITHOUT_TOKENS = {
    "convnext": "ConvNeXt is convolutional: it has no attention",
    "fastvit": "FastViT is convolutional but for its last stage: no attention over its tokens",
    "swin": "Swin attends within windows: it has no attention over all tokens",
    "vitamin": "ViTamin has convolutional stages and gated MLPs, which are not covered",
}
"""Why other timm towers are not supported, by the beginning of their names."""
