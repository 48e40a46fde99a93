"""Outlines of 44 classes of glyphs: digits, capital letters and shapes, filled or stroked.

An outline is a list of closed polygons, float64 [n, 2] with y upwards, centred on the origin, the
longer side of its bounding box 1; what a non-zero winding number encloses is inside. Everything is
flattened here, once, so that a scene is the same polygons at every size. Letters and digits come
from the fonts that matplotlib ships.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Polygons = list[NDArray[np.float64]]

SHAPES = ("triangle", "square", "hexagon", "star", "cross", "arrow", "heart", "crescent")
CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CLASSES = (*CHARACTERS, *SHAPES)
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic",
    "STIXGeneralBolIta",
)  # fmt: skip

_FLATTENING = 400.0  # Agg replaces a curve by lines that are good to a fraction of 1 / this
_MITRE = 2.0  # a corner that stands out further than this, in half widths, is cut off


@cache
def outline(label: int, font: int) -> Polygons:
    """The filled outline of a class in a font (which shapes do not have)."""
    name = CLASSES[label]
    polygons = _character(name, FONTS[font]) if name in CHARACTERS else _shape(name)
    points = np.concatenate(polygons)
    low, high = points.min(axis=0), points.max(axis=0)
    return [(polygon - (low + high) / 2) / (high - low).max() for polygon in polygons]


def stroked(polygons: Polygons, width: float) -> Polygons:
    """The outline of a pen of `width` that follows every polygon, once where its ways overlap."""
    import shapely  # here only, as matplotlib below: a plan draws nothing

    ways = shapely.MultiLineString([np.concatenate([p, p[:1]]) for p in polygons])
    stroke = ways.buffer(width / 2, join_style="mitre", mitre_limit=_MITRE)
    # Holes run the other way than what is around them, so that their winding number is 0.
    parts = shapely.get_parts(shapely.orient_polygons(stroke))
    return [
        shapely.get_coordinates(ring)[:-1]
        for part in parts
        for ring in (part.exterior, *part.interiors)
    ]


def _character(name: str, font: str) -> Polygons:
    from matplotlib import get_data_path
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    file = Path(get_data_path(), "fonts", "ttf", f"{font}.ttf")
    path = TextPath((0, 0), name, size=1, prop=FontProperties(fname=file))
    polygons = path.to_polygons(Affine2D().scale(_FLATTENING))
    return [_without_repeats(np.asarray(polygon)) for polygon in polygons]


def _without_repeats(polygon: NDArray[np.float64]) -> NDArray[np.float64]:
    apart = np.abs(polygon - np.roll(polygon, -1, axis=0)).max(axis=1) > 1e-6 * _FLATTENING
    return polygon[apart]


def _shape(name: str) -> Polygons:
    if name == "triangle":
        return [_on_circle(3)]
    if name == "square":
        return [_on_circle(4, turn=math.pi / 4)]
    if name == "hexagon":
        return [_on_circle(6)]
    if name == "star":
        radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.4)
        return [_on_circle(10) * radii[:, None]]
    if name == "cross":
        quarter = np.array([[1.0, 3.0], [-1.0, 3.0], [-1.0, 1.0]])
        turns = [quarter]
        for _ in range(3):
            turns.append(np.stack([-turns[-1][:, 1], turns[-1][:, 0]], axis=1))
        return [np.concatenate(turns)]
    if name == "arrow":
        half = np.array([[3.0, 0.0], [0.0, 3.0], [0.0, 1.0], [-3.0, 1.0]])
        return [np.concatenate([half, half[:0:-1] * [1, -1]])]
    t = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    if name == "heart":
        across = 16 * np.sin(t) ** 3
        up = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        heart = np.stack([across, up], axis=1)
        return [heart]
    # A crescent: a circle's far side, and back along a flatter arc between the same two horns.
    horns = math.acos(0.35)
    outer = np.linspace(horns, 2 * math.pi - horns, 72)
    centre, radius = 0.55, math.hypot(0.2, math.sin(horns))
    inner_end = math.atan2(math.sin(horns), 0.35 - centre)
    inner = np.linspace(2 * math.pi - inner_end, inner_end, 48)[1:-1]
    arc = np.stack([centre + radius * np.cos(inner), radius * np.sin(inner)], axis=1)
    return [np.concatenate([np.stack([np.cos(outer), np.sin(outer)], axis=1), arc])]


def _on_circle(corners: int, turn: float = 0.0) -> NDArray[np.float64]:
    """A regular polygon, one corner upwards before it is turned."""
    angle = math.pi / 2 + turn + 2 * math.pi * np.arange(corners) / corners
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)
