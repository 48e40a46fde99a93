"""The small classifier whose features measure Fashion-MNIST: the model and how it was trained.

    python -m harness.fashion_cnn --output harness/assets/fashion-cnn.safetensors [--seed 0]

trains it on the training split alone. The same command on the same machine and torch gives the same
bytes: one thread, all draws from generators seeded by --seed. Another machine may round differently
and end at other weights of like accuracy; then their sha256, and with it the protocol, is another.

Training shrinks its images to random sizes in 12..32 before the network enlarges them again, so the
features mean the same at every resolution that is measured.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import nn

from harness import dataset, images

INPUT_SIZE = 32
SMALLEST_SIZE = 12
FEATURES = 64
CLASSES = 10
SPATIAL_CHANNELS = 7  # of the 80 of the 8x8 map: as many as ADM's sFID takes of Inception's
REPORTED_SIZES = (12, 16, 18, 24, 32)

EPOCHS = 9
BATCH = 128
PEAK_LEARNING_RATE = 6e-3
WEIGHT_DECAY = 0.02


class FashionCNN(nn.Module):
    """Grey or RGB images of any size to 64 features and 10 class logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            _block(1, 32, stride=2),  # [B, 32, 16, 16]
            _block(32, 48),
            nn.MaxPool2d(2),  # [B, 48, 8, 8]
            _block(48, 80),
            _block(80, 80),
            nn.MaxPool2d(2),  # [B, 80, 4, 4]
            _block(80, FEATURES),
        )
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the classifier sees in images.

        Args:
            batch: `[B, 1 or 3, h, w]`, uint8 or float, values 0..255. RGB is averaged to grey, then
                everything is resized to 32x32 by torch's bilinear interpolation with
                align_corners=False and antialias=True (which, when enlarging, is the plain one).

        Returns:
            float32 `features` `[B, 64]`, the mean over positions of the last ReLU map; `logits`
            `[B, 10]`; `spatial` `[B, 448]`, the first 7 channels of the 8x8 map before the second
            max pooling, flattened in the order (row, column, channel). In eval mode no image
            depends on the others in its batch.
        """
        x = batch.float().sum(dim=1, keepdim=True) / batch.shape[1]  # [B, 1, h, w]
        x = _to_input_size(x)  # [B, 1, 32, 32]
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


def load(path: Path) -> FashionCNN:
    """The trained classifier on the CPU, frozen and in eval mode."""
    model = FashionCNN()
    model.load_state_dict(load_file(path))
    return model.eval().requires_grad_(False)


def train(
    pixels: torch.Tensor, labels: torch.Tensor, seed: int, epochs: int = EPOCHS
) -> FashionCNN:
    """Train on images uint8 `[N, 1, 32, 32]` and labels int64 `[N]`; the classifier in eval mode.

    AdamW with a one-cycle learning rate; flips and random sizes. Reseeds torch's global
    generator (the initial weights come from it) and prints one line an epoch.
    """
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    model = FashionCNN().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    steps = epochs * (len(pixels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.2
    )
    for epoch in range(epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(pixels), generator=draws)
        batches = order[: len(order) // BATCH * BATCH].split(BATCH)
        for batch in batches:
            x = _augment(pixels[batch].float(), draws)
            loss = F.cross_entropy(model(x)["logits"], labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch + 1} of {epochs}: training loss {total / len(batches):.4f}", flush=True
        )
    return model.eval()


def _augment(batch: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Flip at random, and send each quarter of float `[B, 1, 32, 32]` through a size of its own.

    Several sizes share a batch because batch normalization would else learn to expect one. The
    first quarter stays at 32, which is the only size without any blur and so needs most examples.
    """
    flip = torch.rand(len(batch), generator=draws) < 0.5
    batch = torch.where(flip[:, None, None, None], batch.flip(-1), batch)
    first, *others = batch.chunk(4)
    parts = [first]
    for part in others:
        size = int(torch.randint(SMALLEST_SIZE, INPUT_SIZE + 1, (), generator=draws))
        parts.append(_to_input_size(images.area_resize(part, (size, size))))
    return torch.cat(parts)


@torch.no_grad()
def accuracy(model: FashionCNN, pixels: torch.Tensor, labels: torch.Tensor, size: int) -> float:
    """Share of images uint8 `[N, 1, 32, 32]`, area-resized to `size`, that get their label."""
    right = 0
    for x, y in zip(pixels.split(500), labels.split(500), strict=True):
        logits = model(images.area_resize(x.float(), (size, size)))["logits"]
        right += int((logits.argmax(1) == y).sum())
    return right / len(labels)


def main(arguments: list[str] | None = None) -> int:
    """Train, save and report the accuracy on the test split; the exit code."""
    parser = argparse.ArgumentParser(description="Train the classifier that measures the images.")
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder of the idx files, if not a usual place")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the order of summation, and so the bytes, depend on it
    try:
        folder = dataset.find(options.data)
        train_pixels, train_labels = images.load(folder, "train")
        test_pixels, test_labels = images.load(folder, "test")
    except dataset.DatasetError as error:
        print(error, file=sys.stderr)
        return 2
    model = train(train_pixels, train_labels, options.seed)
    for size in REPORTED_SIZES:
        print(f"test accuracy at {size}: {accuracy(model, test_pixels, test_labels, size):.4f}")
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    partial = options.output.with_name(options.output.name + ".partial")
    partial.write_bytes(save(weights))
    os.replace(partial, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
