"""Training steps of one DiT on random latents, timed against the device's own matrix products.

    python -m benchmarks.steps --width 384 --depth 12 --heads 6 --batch 256 --output FILE

One process a model, for DeepSpeed has one engine a process. A step is the one of `harness.train`:
noise and timesteps drawn on the CPU and copied, forward in bf16, backward, AdamW under ZeRO-1, and
the moving average; reading images, logging and checkpoints are left out. Latents and labels are
random and lie on the device. Exit status: 0 measured, 3 the batch does not fit the device's memory.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.config import Objective, Train
from harness.draws import normal, uniform
from harness.ema import Ema
from harness.engine import World, join_world, make_deterministic, make_engine, quiet
from harness.objective import timesteps, training_loss
from models.dit import DiT
from models.flops import flops
from models.geometry import training_geometry

NO_MEMORY = 3  # exit status

CHANNELS, SIDE, PATCH, CLASSES = 4, 32, 2, 1000  # ImageNet 256x256 as latents of its usual encoder
GRID = (SIDE // PATCH, SIDE // PATCH)
MLP_RATIO, THETA = 4.0, 100.0
SEED = 0
OBJECTIVE = Objective()  # rectified flow, preconditioned

Json = dict[str, Any]


class Step:
    """One training step, as `harness.train` does it, on fixed random latents."""

    def __init__(self, width: int, depth: int, heads: int, batch: int, world: World) -> None:
        self.width, self.heads, self.batch, self.device = width, heads, batch, world.device
        torch.manual_seed(SEED)
        with world.device:
            model = DiT(
                channels=CHANNELS,
                classes=CLASSES,
                width=width,
                depth=depth,
                heads=heads,
                mlp_ratio=MLP_RATIO,
                patch=PATCH,
                encoding="rope",
                qk_norm=True,
                micro_conditioning=False,
            )
            self.latents = torch.randn(batch, CHANNELS, SIDE, SIDE)
            self.labels = torch.randint(CLASSES, (batch,))
        self.parameters = sum(p.numel() for p in model.parameters())
        settings = Train(
            images=batch, batch=batch, learning_rate=1e-4, precision="bf16", zero_stage=1
        )
        self.engine = make_engine(model, settings, world)
        self.engine.train()
        self.ema = Ema(self.engine.module, settings.ema)
        self.loss = torch.zeros(())
        self.done = 0

    def draws(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Noise, timesteps, and the uniforms of rows, of columns and of both, on the CPU."""
        noise = normal(SEED, "noise", step, (self.batch, CHANNELS, SIDE, SIDE))
        t = timesteps(normal(SEED, "timestep", step, (self.batch,)), OBJECTIVE)
        rows = uniform(SEED, "rows", step, (self.batch, GRID[0]))
        columns = uniform(SEED, "columns", step, (self.batch, GRID[1]))
        return noise, t, rows, columns, uniform(SEED, "rescale", step, (self.batch,))

    def __call__(self) -> None:
        noise, t, *drawn = self.draws(self.done)
        noise, t = noise.to(self.device), t.to(self.device)
        geometry = training_geometry(
            "rope", "consecutive", THETA, self.width, self.heads, GRID, GRID, *drawn, self.device
        )
        loss = training_loss(
            self.engine, OBJECTIVE, self.latents, noise, t, self.labels, geometry, None
        )
        self.engine.backward(loss)
        self.engine.step()
        self.ema.update(self.done)
        self.loss = loss.detach()
        self.done += 1


def seconds_each(action: Callable[[], object], times: int, device: torch.device) -> float:
    """Mean seconds of `action`, with the device idle before and after."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        action()
    synchronize(device)
    return (time.perf_counter() - start) / times


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def matmul_rate(size: int, device: torch.device) -> float:
    """FLOP/s of size x size x size matrix products in bf16: the median of five blocks."""
    a = torch.randn(size, size, device=device).bfloat16()
    b = torch.randn(size, size, device=device).bfloat16()
    out = torch.empty_like(a)
    times = 30 if device.type == "cuda" else 1
    blocks = [seconds_each(lambda: torch.mm(a, b, out=out), times, device) for _ in range(6)]
    return 2 * size**3 / statistics.median(blocks[1:])  # the first block warms up


def peak_gib(device: torch.device) -> float:
    """Most memory allocated on the GPU so far; on a CPU, the most that the process held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def device_facts() -> Json:
    """Name, memory, driver and CUDA version of the device that is used here."""
    if not torch.cuda.is_available():
        return {"name": "cpu", "memory_gib": None, "driver": None, "cuda": None}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_gib": properties.total_memory / 2**30,
        "driver": _driver(),
        "cuda": torch.version.cuda,
    }


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.split("\n")[0].strip()


def measure(options: argparse.Namespace) -> Json:
    """All figures of one model; the matrix products come first, with the memory to themselves."""
    quiet()
    make_deterministic(torch.get_num_threads())  # as harness.run
    world = join_world()
    device = world.device
    peak_rate = matmul_rate(options.matmul, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step = Step(options.width, options.depth, options.heads, options.batch, world)
    for _ in range(options.warmup):
        step()
    blocks = [seconds_each(step, options.steps, device) for _ in range(options.blocks)]
    seconds, loss = statistics.median(blocks), float(step.loss)
    if not math.isfinite(loss):
        raise ArithmeticError(f"the loss is {loss} after {step.done} steps")
    forward = flops(
        channels=CHANNELS,
        width=options.width,
        depth=options.depth,
        mlp_ratio=MLP_RATIO,
        patch=PATCH,
        micro_conditioning=False,
        grid=GRID,
    )
    rate = 3 * forward * options.batch / seconds
    return {
        "width": options.width,
        "depth": options.depth,
        "heads": options.heads,
        "batch": options.batch,
        "parameters": step.parameters,
        "steps_timed": options.steps * options.blocks,
        "images_per_second": options.batch / seconds,
        "ms_per_step": 1000 * seconds,
        "ms_per_step_blocks": [1000 * block for block in blocks],
        "draws_ms": 1000 * seconds_each(lambda: step.draws(0), 3, torch.device("cpu")),
        "peak_memory_gib": peak_gib(device),
        "tflops": rate / 1e12,
        "matmul_tflops": peak_rate / 1e12,
        "matmul_size": options.matmul,
        "share_of_matmul": rate / peak_rate,
        "loss": loss,
        "device": device_facts()["name"],
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--facts", action="store_true", help="only what the device is")
    for name, default in (("width", 384), ("depth", 12), ("heads", 6), ("batch", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--warmup", type=int, default=10, help="steps before the timed ones")
    parser.add_argument("--blocks", type=int, default=5, help="timed blocks; the median counts")
    parser.add_argument("--steps", type=int, default=6, help="steps in a block")
    parser.add_argument("--matmul", type=int, default=8192, help="side of the matrix product")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = parse(arguments)
    try:
        result = device_facts() if options.facts else measure(options)
    except torch.OutOfMemoryError as error:
        print(f"batch {options.batch}: {str(error).splitlines()[0]}", file=sys.stderr)
        return NO_MEMORY
    options.output.write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
