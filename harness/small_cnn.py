"""The small classifiers whose features measure Fashion-MNIST and the glyphs, and their training.

    python -m harness.small_cnn --output harness/assets/fashion-cnn.safetensors [--seed 0]
    python -m harness.small_cnn --data glyphs --output harness/assets/glyph-cnn.safetensors

train one on the training split alone. The same command on the same machine and torch gives the same
bytes: one thread, all draws from generators seeded by --seed. Another machine may round differently
and end at other weights of like accuracy; then their sha256, and with it the protocol, is another.

Images come in random sizes, 12..32 of Fashion-MNIST and 12..64 of the glyphs, before the network
brings them to its own, so the features mean the same at every resolution that is measured.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import nn

from harness import fashion_mnist, glyphs, images
from harness.facts import DatasetError
from harness.files import write_atomic

INPUT_SIZE = 32
SMALLEST_SIZE = 12
LARGEST_GLYPH = 64
FEATURES = 64
SPATIAL_CHANNELS = 7  # of the 80 of the 8x8 map: as many as ADM's sFID takes of Inception's
REPORTED_SIZES = {"fashion_mnist": (12, 16, 18, 24, 32), "glyphs": (12, 16, 24, 32, 48, 64)}

EPOCHS = 9
BATCH = 128
PEAK_LEARNING_RATE = 6e-3
WEIGHT_DECAY = 0.02


class SmallCNN(nn.Module):
    """Grey or RGB images of any size to 64 features and the logits of K classes.

    Args:
        channels: 1 or 3, of what it looks at.
        classes: K.
    """

    def __init__(self, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.channels = channels
        self.stages = nn.Sequential(
            _block(channels, 32, stride=2),  # [B, 32, 16, 16]
            _block(32, 48),
            nn.MaxPool2d(2),  # [B, 48, 8, 8]
            _block(48, 80),
            _block(80, 80),
            nn.MaxPool2d(2),  # [B, 80, 4, 4]
            _block(80, FEATURES),
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the classifier sees in images.

        Args:
            batch: `[B, 1 or 3, h, w]`, uint8 or float, values 0..255. For one channel RGB is
                averaged to grey, for three grey is repeated; then everything is resized to 32x32 by
                torch's bilinear interpolation with align_corners=False and antialias=True (which,
                when enlarging, is the plain one).

        Returns:
            float32 `features` `[B, 64]`, the mean over positions of the last ReLU map; `logits`
            `[B, K]`; `spatial` `[B, 448]`, the first 7 channels of the 8x8 map before the second
            max pooling, flattened in the order (row, column, channel). In eval mode no image
            depends on the others in its batch.
        """
        if self.channels == 1:
            x = batch.float().sum(dim=1, keepdim=True) / batch.shape[1]
        else:
            x = batch.float().expand(-1, 3, -1, -1)
        x = _to_input_size(x)  # [B, 1 or 3, 32, 32]
        x = self.stages[:5](images.to_float(x))  # [B, 80, 8, 8]
        spatial = x[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)  # [B, 8 * 8 * 7]
        features = self.stages[5:](x).mean(dim=(2, 3))  # [B, 64]
        return {"features": features, "logits": self.head(features), "spatial": spatial}


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _to_input_size(batch: torch.Tensor) -> torch.Tensor:
    size = (INPUT_SIZE, INPUT_SIZE)
    if batch.shape[-2:] == size:
        return batch
    return F.interpolate(batch, size, mode="bilinear", align_corners=False, antialias=True)


def load(path: Path) -> SmallCNN:
    """A trained classifier on the CPU, frozen and in eval mode."""
    weights = load_file(path)
    model = SmallCNN(weights["stages.0.0.weight"].shape[1], len(weights["head.bias"]))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


# Indices int64 [B] and draws to float images [B, C, 32, 32] in 0..255.
Batches = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def train(
    batches: Batches, labels: torch.Tensor, seed: int, epochs: int, channels: int, classes: int
) -> SmallCNN:
    """Train on images with labels int64 `[N]`; the classifier in eval mode.

    AdamW with a one-cycle learning rate. Reseeds torch's global generator (the initial weights
    come from it) and prints one line an epoch.
    """
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    model = SmallCNN(channels, classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    steps = epochs * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.2
    )
    for epoch in range(epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(labels), generator=draws)
        parts = order[: len(order) // BATCH * BATCH].split(BATCH)
        for part in parts:
            loss = F.cross_entropy(model(batches(part, draws))["logits"], labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1} of {epochs}: training loss {total / len(parts):.4f}", flush=True)
    return model.eval()


def fashion_batches(pixels: torch.Tensor) -> Batches:
    """Images uint8 `[N, 1, 32, 32]`, flipped at random, each quarter sent through its own size.

    Several sizes share a batch because batch normalization would else learn to expect one. The
    first quarter stays at 32, which is the only size without any blur and so needs most examples.
    """

    def batch(indices: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        x = pixels[indices].float()
        flip = torch.rand(len(x), generator=draws) < 0.5
        x = torch.where(flip[:, None, None, None], x.flip(-1), x)
        first, *others = x.chunk(4)
        parts = [first]
        for part in others:
            size = _some_size(INPUT_SIZE, draws)
            parts.append(_to_input_size(images.area_resize(part, (size, size))))
        return torch.cat(parts)

    return batch


def glyph_batches(indices: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Training glyphs, the first quarter drawn at 32, each other one at a size of its own."""
    first, *others = indices.chunk(4)
    parts = [_glyphs("train", first, INPUT_SIZE)]
    for part in others:
        parts.append(_to_input_size(_glyphs("train", part, _some_size(LARGEST_GLYPH, draws))))
    return torch.cat(parts)


def _glyphs(split: str, indices: torch.Tensor, size: int) -> torch.Tensor:
    return torch.from_numpy(glyphs.render(split, indices.tolist(), (size, size)))


def _some_size(largest: int, draws: torch.Generator) -> int:
    return int(torch.randint(SMALLEST_SIZE, largest + 1, (), generator=draws))


# Indices int64 [B] of held-out images and a size to float images [B, C, size, size] in 0..255.
HeldOut = Callable[[torch.Tensor, int], torch.Tensor]


@torch.no_grad()
def accuracy(model: SmallCNN, held_out: HeldOut, labels: torch.Tensor, size: int) -> float:
    """Share of held-out images of `size` that get their label, int64 `[N]`."""
    right = 0
    for indices in torch.arange(len(labels)).split(500):
        logits = model(held_out(indices, size))["logits"]
        right += int((logits.argmax(1) == labels[indices]).sum())
    return right / len(labels)


def area_averages(pixels: torch.Tensor) -> HeldOut:
    """Images uint8 `[N, 1, 32, 32]`, area-resized."""
    return lambda indices, size: images.area_resize(pixels[indices].float(), (size, size))


def held_out_glyphs(indices: torch.Tensor, size: int) -> torch.Tensor:
    """Held-out glyphs, drawn at `size`."""
    return _glyphs("test", indices, size)


def main(arguments: list[str] | None = None) -> int:
    """Train, save and report the accuracy on the held-out split; the exit code."""
    parser = argparse.ArgumentParser(description="Train a classifier that measures images.")
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=tuple(REPORTED_SIZES), default="fashion_mnist")
    parser.add_argument("--folder", type=Path, help="of the idx files, if not a usual place")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the order of summation, and so the bytes, depend on it
    batches: Batches
    held_out: HeldOut
    try:
        if options.data == "glyphs":
            glyphs.check()
            facts, batches, held_out = glyphs.FACTS, glyph_batches, held_out_glyphs
            labels, test_labels = (
                torch.arange(count) % facts.classes for count in (facts.training, facts.held_out)
            )
        else:
            folder, facts = fashion_mnist.find(options.folder), fashion_mnist.FACTS
            pixels, labels = images.load(folder, "train")
            test_pixels, test_labels = images.load(folder, "test")
            batches, held_out = fashion_batches(pixels), area_averages(test_pixels)
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 2
    model = train(batches, labels, options.seed, EPOCHS, facts.channels, facts.classes)
    for size in REPORTED_SIZES[options.data]:
        print(f"test accuracy at {size}: {accuracy(model, held_out, test_labels, size):.4f}")
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_atomic(options.output, save(weights))
    return 0


if __name__ == "__main__":
    sys.exit(main())
