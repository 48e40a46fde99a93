"""Feature shards: what the extractors saw in one range of samples, one file a range.

    <folder>/00000000-00000125.safetensors
        <extractor>/<view>   float32 [n, width]
        sha256               uint8 [n, 32], of each image's pixels
        images               uint8 [m, C, h, w]: those that are to be shown, or all

A killed evaluation goes on from the shards that are there. Each file names what it is a shard of
and appears by rename, so what another code or a cut-off write left is never mixed in. Reading goes
through one file at a time: memory does not grow with the number of samples.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from harness.files import write_atomic


@dataclass(frozen=True)
class Shards:
    """The shards in a folder that belong to `key`."""

    folder: Path
    key: str

    def ranges(self) -> list[range]:
        """The ranges of samples that are there, ascending; damaged and foreign files go."""
        found: list[range] = []
        for file in sorted(self.folder.glob("*.safetensors")):
            indices = self._range(file)
            if indices is None or (found and indices.start < found[-1].stop):
                file.unlink()
            else:
                found.append(indices)
        return found

    def missing(self, samples: int, batch: int) -> list[range]:
        """What is still to be made of samples 0 .. samples - 1, in ranges of at most `batch`.

        Without any shard these are the multiples of `batch`, however many ranks share them, so
        that the rounding inside one depends on nothing else.
        """
        gaps, start = [], 0
        for done in [*self.ranges(), range(samples, samples)]:
            if done.start > start:
                gaps.append(range(start, done.start))
            start = max(start, done.stop)
        return [
            range(first, min(first + batch, gap.stop))
            for gap in gaps
            for first in range(gap.start, gap.stop, batch)
        ]

    def write(self, indices: range, arrays: Mapping[str, Tensor]) -> None:
        """Keep the arrays of these samples."""
        whole = {name: array.contiguous() for name, array in arrays.items()}
        content = save(whole, {"key": self.key, "sha256": _sha256(indices, whole)})
        write_atomic(self.folder / f"{indices.start:08d}-{indices.stop:08d}.safetensors", content)

    def read(self, name: str) -> Iterator[Tensor]:
        """The array `name` of all samples, in order, shard by shard; nothing where none has it."""
        for file in sorted(self.folder.glob("*.safetensors")):
            with safe_open(file, "pt") as shard:
                if name in shard.keys():  # noqa: SIM118  # not a mapping
                    yield shard.get_tensor(name)

    def seen_by(self, extractor: str) -> Callable[[str], Iterator[Tensor]]:
        """What an extractor saw: a view -> its arrays, as `read` gives them."""
        return lambda view: self.read(f"{extractor}/{view}")

    def remove(self) -> None:
        """Delete them all."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # where this was the last

    def _range(self, file: Path) -> range | None:
        try:
            with safe_open(file, "pt") as shard:
                start, stop = map(int, file.stem.split("-"))
                said = shard.metadata() or {}
                if said["key"] != self.key:
                    return None
                arrays = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
                indices = range(start, stop)
                return indices if said["sha256"] == _sha256(indices, arrays) else None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return None


def _sha256(indices: range, arrays: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256(f"{indices.start}-{indices.stop}".encode())
    for name in sorted(arrays):
        total.update(f"{name} {list(arrays[name].shape)}\0".encode())
        total.update(arrays[name].numpy().tobytes())
    return total.hexdigest()


def pixels_sha256(images: Tensor) -> Tensor:
    """SHA-256 of each image's pixels: uint8 [N, 32] of uint8 images [N, C, h, w]."""
    digests = b"".join(hashlib.sha256(image.tobytes()).digest() for image in images.numpy())
    return torch.frombuffer(bytearray(digests), dtype=torch.uint8).reshape(-1, 32)


def samples_sha256(shards: Shards) -> str:
    """One hash of all images, whatever ranges they came in: to tell whether two sets are equal."""
    total = hashlib.sha256()
    for part in shards.read("sha256"):
        total.update(part.numpy().tobytes())
    return total.hexdigest()


def distinct(shards: Shards) -> int:
    """How many of the images differ from each other."""
    return len({row.tobytes() for part in shards.read("sha256") for row in part.numpy()})
