"""Glyphs: vector scenes that are drawn straight at any size, so every size has its ground truth.

Scene i of a split shows class i mod 44 (`harness.outlines`): a digit or capital in one of 16 faces,
or a shape, filled or stroked, under a random rotation, shear, aspect, size and place, in one colour
upon another. It is a function of (split, i) alone. A pixel's value is the mean of the scene over
the pixel's area (matplotlib's Agg rasterizer: exact areas, to 1/256), so a render at 2r, averaged
over squares of four pixels, is the render at r within 3 of 255. A size that is not square shows
the same scene, stretched.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.facts import DatasetError, Facts
from harness.outlines import CLASSES, FONTS, Polygons, outline, stroked

Size = tuple[int, int]

FACTS = Facts(
    digest="e836807bc0c0927f5e2c0d4c3a388a0c3c88da14fd6b98e16a818d4c60a765a1",
    side=1024,
    training=60_000,
    held_out=10_000,
    channels=3,
    classes=len(CLASSES),
)

_SEED = 0  # fixed: which scenes there are is part of the data set
_MARGIN = 0.02  # of the picture's side, kept free on each side
_CONTRAST = 0.35  # least difference of luma (0..1) between the two colours, where tries find it
_TRIES = 8
_LUMA = np.array([0.299, 0.587, 0.114])  # of ITU-R BT.601


@dataclass(frozen=True)
class Scene:
    """One picture before it is drawn.

    Args:
        polygons: in units of the picture's sides, x to the right and y upwards, in 0..1; what a
            non-zero winding number encloses has the second colour.
        colours: float64 [2, 3], background and glyph, RGB in 0..255.
    """

    polygons: Polygons
    colours: NDArray[np.float64]


def scene(split: str, index: int) -> Scene:
    """Scene `index` of the split "train" or "test"."""
    from harness.draws import generator  # here only: it imports torch, which facts do not need

    draw = generator(_SEED, f"glyphs {split}", index)
    u = draw.random(9)
    polygons = outline(index % len(CLASSES), int(u[0] * len(FONTS)))
    if u[1] < 0.5:
        polygons = stroked(polygons, 0.05 + 0.07 * u[2])
    angle, shear, aspect = math.radians(40 * u[3] - 20), 0.4 * u[4] - 0.2, 1.25 ** (2 * u[5] - 1)
    cosine, sine = math.cos(angle), math.sin(angle)
    matrix = (
        np.array([[cosine, -sine], [sine, cosine]])
        @ np.array([[1, shear], [0, 1]])
        @ np.diag([aspect, 1 / aspect])
    )
    turned = [polygon @ matrix.T for polygon in polygons]
    points = np.concatenate(turned)
    low, high = points.min(axis=0), points.max(axis=0)
    side = 0.55 + 0.4 * u[6]  # of the longer side of the bounding box
    scale = side / (high - low).max()
    free = 1 - 2 * _MARGIN - scale * (high - low)
    corner = _MARGIN + u[7:9] * free
    return Scene([corner + scale * (polygon - low) for polygon in turned], _colours(draw))


def _colours(draw: np.random.Generator) -> NDArray[np.float64]:
    """The first of a few random pairs that differ enough in luma, else the most different one."""
    pairs = draw.random((_TRIES, 2, 3))
    luma = pairs @ _LUMA
    contrast = np.abs(luma[:, 0] - luma[:, 1])
    enough = contrast >= _CONTRAST
    return 255 * pairs[int(enough.argmax() if enough.any() else contrast.argmax())]


def render(
    split: str,
    indices: Sequence[int],
    size: Size,
    whole: NDArray[np.int64] | None = None,
    corners: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Scenes of a split as float32 [B, 3, h, w], 0..255, not rounded.

    Args:
        indices: B scenes of "train" or "test".
        size: (h, w) of the result.
        whole: int [B, 2], the size at which each scene is drawn; None: `size`.
        corners: int [B, 2], (top, left) of the window of `size` that is cut out of it; only the
            window is drawn, within 2 of 255 (Agg's grid of 1/256).
    """
    h, w = size
    canvas = _Canvas(h, w)  # of this call alone: others may draw at the same time
    result = np.empty((len(indices), 3, h, w), np.float32)
    for row, index in enumerate(indices):
        full_h, full_w = (h, w) if whole is None else whole[row]
        top, left = (0, 0) if corners is None else corners[row]
        drawn = scene(split, int(index))
        # Agg's y points upwards, from the lower edge of the window.
        places = [p * (full_w, full_h) - (left, full_h - top - h) for p in drawn.polygons]
        share = canvas.coverage(places) * np.float32(1 / 255)
        back, front = drawn.colours.astype(np.float32)[:, :, None, None]
        np.multiply(front - back, share, out=result[row])
        result[row] += back
    return result


class _Canvas:
    """Agg's rasterizer with a canvas of one size that is used for scene after scene."""

    def __init__(self, height: int, width: int) -> None:
        from matplotlib.backends.backend_agg import RendererAgg

        self.renderer = RendererAgg(width, height, 72)
        self.context: Any = self.renderer.new_gc()
        self.context.set_linewidth(0)
        self.context.set_snap(False)
        self.context.set_antialiased(True)

    def coverage(self, polygons: Polygons) -> NDArray[np.uint8]:
        """How much of each pixel lies inside, 0..255, [height, width]; valid until the next."""
        from matplotlib.path import Path
        from matplotlib.transforms import IdentityTransform

        vertices = np.concatenate([part for p in polygons for part in (p, p[:1])])
        codes = np.full(len(vertices), Path.LINETO, np.uint8)
        ends = np.cumsum([len(p) + 1 for p in polygons])
        codes[ends - 1] = Path.CLOSEPOLY
        codes[np.concatenate([[0], ends[:-1]])] = Path.MOVETO
        self.renderer.clear()
        path, black = Path(vertices, codes), (0.0, 0.0, 0.0, 1.0)
        self.renderer.draw_path(self.context, path, IdentityTransform(), black)
        return np.asarray(self.renderer.buffer_rgba())[..., 3]


def digest() -> str:
    """sha256 of every outline, a stroke of each class, and renders at two sizes, in bytes."""
    total = hashlib.sha256()
    for label in range(len(CLASSES)):
        fonts = [outline(label, font) for font in range(len(FONTS))]
        for polygons in (*fonts, stroked(fonts[label % len(FONTS)], 0.08)):
            total.update(f"{[len(polygon) for polygon in polygons]}\n".encode())
            # To 1e-4; the shift keeps coordinates such as 1/32 off the border of two roundings.
            places = np.rint(1e4 * np.concatenate(polygons) + 0.2)
            total.update(places.astype("<i8").tobytes())
    for split, count, size in (("train", 64, (24, 24)), ("test", 48, (48, 32))):
        total.update(np.rint(render(split, range(count), size)).astype(np.uint8).tobytes())
    return total.hexdigest()


@cache
def check() -> None:
    """Whether the scenes come out here as they are defined.

    Raises:
        DatasetError: they do not: another matplotlib or shapely makes other outlines.
    """
    import matplotlib
    import shapely

    if (found := digest()) != FACTS.digest:
        raise DatasetError(
            f"glyphs come out otherwise with matplotlib {matplotlib.__version__} and shapely "
            f"{shapely.__version__} (digest {found[:16]}, expected {FACTS.digest[:16]});\n"
            "install the tested versions: pip install -c constraints.txt matplotlib shapely"
        )
