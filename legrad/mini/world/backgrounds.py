"""Ten textured backgrounds; each painter fills the whole frame."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageEnhance

Paint = Callable[[int, np.random.Generator], Image.Image]
Field = NDArray[np.float32]
Pixels = NDArray[np.float32]
SUPERSAMPLING = 2


def paint_background(name: str, side: int, rng: np.random.Generator) -> Image.Image:
    """Fill a frame.

    Args:
        name: one of ``BACKGROUNDS``.
        side: side of the frame in pixels.
        rng: decides every detail.

    Returns:
        RGB, ``side`` x ``side``.
    """
    light, colour = rng.uniform(0.86, 1.06), rng.uniform(0.85, 1.15)
    image = PAINTERS[name](side, rng)
    return ImageEnhance.Color(ImageEnhance.Brightness(image).enhance(light)).enhance(colour)


def _canvas(image: Image.Image) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """The image enlarged for drawing, a drawer on it, and its side."""
    side = image.width * SUPERSAMPLING
    large = image.resize((side, side), Image.Resampling.NEAREST)
    return large, ImageDraw.Draw(large), side


def grass(side: int, rng: np.random.Generator) -> Image.Image:
    """A lawn of single blades."""
    field = 0.5 + 0.28 * noise(rng, side, 5) + 0.2 * noise(rng, side, 40)
    image, draw, large = _canvas(to_image(ramp(field, ("#3f7a2a", "#5c9a37", "#78b346"))))
    colours = [(52, 112, 36), (96, 160, 58), (130, 190, 74), (44, 98, 34)]
    blades = rng.random((260, 4))
    for x, y, lean, tone in sorted(blades.tolist(), key=lambda blade: blade[1]):
        tip = (x + (lean - 0.5) * 0.05, y - 0.035 - 0.03 * lean)
        ends = [(x * large, y * large), (tip[0] * large, tip[1] * large)]
        draw.line(ends, fill=colours[int(tone * 4)], width=max(1, round(large * 0.006)))
    return image.reduce(SUPERSAMPLING)


def water(side: int, rng: np.random.Generator) -> Image.Image:
    """Open water with ripples that grow towards the viewer."""
    x, y = mesh(side)
    depth = 9 + 16 * (1 - y)
    bend = 0.5 * noise(rng, side, 4) + 0.35 * noise(rng, side, (8, 14))
    waves = np.sin(6.2832 * (depth * y + bend + rng.random()) + 2 * np.sin(7 * x + 3 * bend))
    field = 0.5 + 0.2 * waves + 0.18 * noise(rng, side, (6, 20)) + 0.12 * (y - 0.5)
    return to_image(ramp(field, ("#0f4f8c", "#1c74b4", "#3d9ad1", "#8fd0ec", "#e6f7fd")))


def sand(side: int, rng: np.random.Generator) -> Image.Image:
    """Dunes with wind ripples and grains."""
    x, y = mesh(side)
    slope = rng.uniform(-0.35, 0.35)
    bend = 0.7 * noise(rng, side, 3) + 0.15 * noise(rng, side, 9)
    ripples = np.sin(6.2832 * (9 * (y + slope * x) + bend))
    field = 0.55 + 0.16 * ripples + 0.15 * noise(rng, side, 3) + 0.13 * noise(rng, side, 90)
    return to_image(ramp(field, ("#c39a5c", "#dcb878", "#ecd09a", "#f7e6bf")))


def brick(side: int, rng: np.random.Generator) -> Image.Image:
    """A brick wall, courses shifted by half a brick."""
    image, draw, large = _canvas(
        to_image(ramp(0.5 + 0.3 * noise(rng, side, 40), ("#b3a799", "#d6ccbe")))
    )
    rows = int(rng.integers(8, 12))
    height, joint = 1 / rows, 0.011
    width, start = 2.3 * height, rng.random() * height
    for row in range(-1, rows + 1):
        for column in range(-1, int(1 / width) + 2):
            left = (column + 0.5 * (row % 2)) * width - start
            top = row * height + start
            box = (left, top, left + width - joint, top + height - joint)
            colour = shaded(rng, (168, 80, 58), 0.2)
            draw.rounded_rectangle([v * large for v in box], 0.006 * large, fill=colour)
    grain = 1 + 0.08 * noise(rng, side, 70)[..., None]
    return to_image(np.asarray(image.reduce(SUPERSAMPLING), dtype=np.float32) * grain)


def snow(side: int, rng: np.random.Generator) -> Image.Image:
    """Snow drifts with bluish shade and a few glints."""
    x, y = mesh(side)
    drift = np.sin(6.2832 * (2.2 * y + 0.5 * rng.uniform(-1, 1) * x + 0.45 * noise(rng, side, 3)))
    field = 0.52 + 0.2 * drift + 0.16 * noise(rng, side, 6) + 0.07 * noise(rng, side, 100)
    image, draw, large = _canvas(
        to_image(ramp(field, ("#9dbadb", "#c9dbee", "#e6eff8", "#fafdff")))
    )
    for px, py, size in rng.random((36, 3)).tolist():
        radius = (0.002 + 0.005 * size) * large
        at = (px * large, py * large)
        draw.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), fill="white")
    return image.reduce(SUPERSAMPLING)


def night_sky(side: int, rng: np.random.Generator) -> Image.Image:
    """A dark sky with a hazy band and stars."""
    x, y = mesh(side)
    lean, centre = rng.uniform(-0.8, 0.8), rng.uniform(0.2, 0.8)
    band = np.exp(-(((y - centre + lean * (x - 0.5)) / 0.22) ** 2))
    field = (
        0.15
        + 0.25 * y
        + 0.4 * band * (0.7 + 0.4 * noise(rng, side, 7))
        + 0.08 * noise(rng, side, 4)
    )
    image, draw, large = _canvas(
        to_image(ramp(field, ("#070b1f", "#121a45", "#2a2f6e", "#54508f")))
    )
    for px, py, size, tone in rng.random((90, 4)).tolist():
        radius = (0.0025 + 0.0065 * size**4) * large
        at = (px * large, py * large)
        colour = (255, 250, 225) if tone < 0.7 else (190, 212, 255)
        draw.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), fill=colour)
    return image.reduce(SUPERSAMPLING)


def wood(side: int, rng: np.random.Generator) -> Image.Image:
    """Upright boards with grain."""
    x, y = mesh(side)
    boards = int(rng.integers(4, 7))
    position = x * boards + rng.random()
    board = np.floor(position).astype(int) + 0 * y.astype(int)
    tone = rng.uniform(-0.16, 0.16, boards + 2).astype(np.float32)[board]
    grain = np.sin(6.2832 * (7 * position + 1.1 * noise(rng, side, (2 * boards, 3)) + 9 * tone))
    field = 0.5 + tone + 0.13 * grain + 0.16 * noise(rng, side, (80, 5))
    gap = np.abs(position - np.round(position)) < 0.035
    return to_image(ramp(field - 0.5 * gap, ("#4d2c14", "#82502a", "#a86f3d", "#c99256")))


def tiles(side: int, rng: np.random.Generator) -> Image.Image:
    """A floor of mint and white tiles with grey joints."""
    x, y = mesh(side)
    count, shift = int(rng.integers(5, 8)), rng.random(2)
    column, row = x * count + shift[0], y * count + shift[1]
    colour = (np.floor(column) + np.floor(row)) % 2
    glaze = 0.06 * noise(rng, side, 9) + 0.05 * noise(rng, side, 60)
    pixels = ramp(0.3 + 0.6 * colour + glaze, ("#7fc4b4", "#98d3c5", "#eef6f1", "#ffffff"))
    edge = np.minimum(np.abs(column - np.round(column)), np.abs(row - np.round(row)))
    joint = np.clip(1.5 - edge / 0.04, 0, 1)[..., None]
    return to_image(pixels * (1 - joint) + np.array([128, 138, 142], dtype=np.float32) * joint)


def clouds(side: int, rng: np.random.Generator) -> Image.Image:
    """White clouds on a bright blue sky."""
    _, y = mesh(side)
    puffs = (
        0.62 * noise(rng, side, (3, 5))
        + 0.33 * noise(rng, side, (7, 10))
        + 0.16 * noise(rng, side, 20)
    )
    cover = np.clip((puffs - 0.02) / 0.42, 0, 1)[..., None]
    sky = ramp(y + 0 * cover[..., 0], ("#2f86e0", "#5aa7ee", "#9ccdf7"))
    shade = ramp(0.55 + 0.5 * puffs, ("#c9d7e8", "#ffffff", "#ffffff"))
    return to_image(sky * (1 - cover) + shade * cover)


def pebbles(side: int, rng: np.random.Generator) -> Image.Image:
    """A bed of rounded grey stones."""
    image, draw, large = _canvas(
        to_image(ramp(0.4 + 0.3 * noise(rng, side, 50), ("#3f3d3a", "#5c5955")))
    )
    for x, y, size, tone in rng.random((330, 4)).tolist():
        rx = (0.022 + 0.03 * size) * large
        ry, at = rx * (0.65 + 0.3 * tone), (x * large, y * large)
        warm = (142, 134, 124) if tone < 0.5 else (126, 132, 138)
        base = shaded(rng, warm, 0.28)
        draw.ellipse((at[0] - rx, at[1] - ry, at[0] + rx, at[1] + ry), fill=(52, 50, 48))
        draw.ellipse((at[0] - rx, at[1] - ry, at[0] + rx * 0.9, at[1] + ry * 0.85), fill=base)
        lit = shaded(rng, (base[0] + 26, base[1] + 26, base[2] + 26), 0.02)
        draw.ellipse((at[0] - rx * 0.7, at[1] - ry * 0.75, at[0] + rx * 0.1, at[1]), fill=lit)
    return image.reduce(SUPERSAMPLING)


def noise(rng: np.random.Generator, side: int, cells: int | tuple[int, int]) -> Field:
    """Smooth noise in about [-1, 1], float32 (side, side), ``cells`` bumps across (and down).

    The bumps are drawn on a grid of fixed size, so a picture is the same at every ``side``.
    """
    across, down = (cells, cells) if isinstance(cells, int) else cells
    grid = rng.uniform(-1, 1, size=(down + 3, across + 3)).astype(np.float32)
    box = (1.0, 1.0, across + 2.0, down + 2.0)
    smooth = Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC, box=box)
    return np.asarray(smooth)


def mesh(side: int) -> tuple[Field, Field]:
    """Coordinates x (1, side) and y (side, 1) of pixel centres, in [0, 1]."""
    line = ((np.arange(side) + 0.5) / side).astype(np.float32)
    return line[None, :], line[:, None]


def ramp(field: Field, colours: Sequence[str]) -> Pixels:
    """Map values in [0, 1] to colours spread evenly; float32 (side, side, 3) in [0, 255]."""
    stops = np.linspace(0, 1, len(colours))
    table = np.array([ImageColor.getrgb(colour) for colour in colours], dtype=np.float32)
    grid = np.linspace(0, 1, 256)
    palette = np.stack([np.interp(grid, stops, table[:, c]) for c in range(3)], axis=1)
    index = (np.clip(field, 0, 1) * 255).astype(np.uint8)
    return palette.astype(np.float32)[index]


def to_image(pixels: Pixels) -> Image.Image:
    """RGB image of float pixels in [0, 255]."""
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def shaded(
    rng: np.random.Generator, colour: tuple[int, int, int], spread: float
) -> tuple[int, int, int]:
    """The colour made lighter or darker by up to ``spread`` (a fraction)."""
    factor = 1 + rng.uniform(-spread, spread)
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


PAINTERS: dict[str, Paint] = {
    "grass": grass,
    "water": water,
    "sand": sand,
    "brick": brick,
    "snow": snow,
    "night sky": night_sky,
    "wood": wood,
    "tiles": tiles,
    "clouds": clouds,
    "pebbles": pebbles,
}
