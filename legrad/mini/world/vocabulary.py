"""What the drawn world can contain, by name."""

OBJECTS: tuple[str, ...] = (
    "boat",
    "fish",
    "bird",
    "tree",
    "house",
    "car",
    "flower",
    "apple",
    "mushroom",
    "balloon",
    "cat",
    "butterfly",
    "umbrella",
    "clock",
    "turtle",
    "cactus",
    "key",
    "cake",
)

BACKGROUNDS: tuple[str, ...] = (
    "grass",
    "water",
    "sand",
    "brick",
    "snow",
    "night sky",
    "wood",
    "tiles",
    "clouds",
    "pebbles",
)

OVERLAYS: tuple[str, ...] = (
    "watermark",
    "border",
    "barcode",
    "sticker",
    "timestamp",
    "logo",
    "ruler",
    "stamp",
)

THINGS: tuple[str, ...] = (*OBJECTS, *OVERLAYS)
"""What has a place in the picture, and so a mask."""
