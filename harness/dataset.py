"""The data sets by name: what is known of each without reading its images.

    python -m harness.dataset [--destination DIR]   # Fashion-MNIST: where it is; gets it
    python -m harness.folder FOLDER                 # indexes a folder of pictures

`fashion_mnist` and `glyphs` are fixed, `image_folder` is whatever its index says. No torch here: a
plan asks for the facts of every cell.
"""

import sys

from harness import fashion_mnist, folder_index, glyphs
from harness.config import Data
from harness.facts import NAMES, DatasetError, Facts

__all__ = ["NAMES", "DatasetError", "Facts", "check", "facts", "upsampled"]


def facts(data: Data) -> Facts:
    """What is known of a data set; fast, and its images are not looked at.

    Raises:
        DatasetError: a folder of pictures without an index; the message says how to make one.
    """
    if data.name == "image_folder":
        return folder_index.header(folder_index.path_of(data.folder)).facts
    return {"fashion_mnist": fashion_mnist.FACTS, "glyphs": glyphs.FACTS}[data.name]


def upsampled(data: Data, size: tuple[int, int]) -> float:
    """Share (0..1) of a data set's images with a side below `size` (h, w), which are enlarged.

    Raises:
        DatasetError: as `facts`.
    """
    if data.name == "image_folder":
        return folder_index.header(folder_index.path_of(data.folder)).smaller_than(size)
    if data.name == "fashion_mnist":
        return float(max(size) > fashion_mnist.FACTS.side)
    return 0.0  # glyphs are drawn at any size


def check(data: Data) -> None:
    """Whether a data set is on this machine, before anything is started that would need it.

    Raises:
        DatasetError: it is not, or it is another; the message says what to do.
    """
    if data.name == "fashion_mnist":
        fashion_mnist.find()
    elif data.name == "glyphs":
        glyphs.check()
    else:
        folder_index.open_files(folder_index.path_of(data.folder))


if __name__ == "__main__":
    sys.exit(fashion_mnist.main())
