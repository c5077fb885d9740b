"""Text as a tight greyscale picture, in the font that Pillow carries with it."""

from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def lettering(text: str, height: int, weight: int = 0) -> Image.Image:
    """White letters on black, cropped to the ink.

    Args:
        text: one line.
        height: font size in pixels.
        weight: extra stroke width in pixels, for bold letters.

    Returns:
        Mode ``L``, as large as the ink.
    """
    font = _font(max(6, height))
    left, top, right, bottom = font.getbbox(text, stroke_width=weight)
    pad = 2
    size = (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad)
    image = Image.new("L", size, 0)
    draw = ImageDraw.Draw(image)
    draw.text((pad - left, pad - top), text, fill=255, font=font, stroke_width=weight)
    return image.crop(image.getbbox())
