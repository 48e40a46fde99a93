"""DINOv2 from a file as Meta's, with random weights, against a network written out by hand."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import dinov2, extractors, features

WIDTH, DEPTH, HEADS = 48, 2, 4
PARAMETERS = 304_368_640  # of Meta's dinov2_vitl14, all that its file holds


def metas_file(width: int, depth: int) -> dict[str, torch.Size]:
    """The names and shapes in Meta's file of a ViT/14, whose images were 518x518 (37x37 patches).

    As `torch.hub.load("facebookresearch/dinov2", ...)` has them, the mask token of training too.
    """
    shapes = {
        "cls_token": (1, 1, width), "pos_embed": (1, 1 + 37 * 37, width),
        "mask_token": (1, width), "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,), "norm.weight": (width,), "norm.bias": (width,),
    }  # fmt: skip
    block = {
        "norm1.weight": (width,), "norm1.bias": (width,), "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,), "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,), "ls1.gamma": (width,), "norm2.weight": (width,),
        "norm2.bias": (width,), "mlp.fc1.weight": (4 * width, width), "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,), "ls2.gamma": (width,),
    }  # fmt: skip
    for i in range(depth):
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return {name: torch.Size(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draws = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in metas_file(WIDTH, DEPTH).items():
        spread = 0.5 if len(shape) == 1 or "embed" in name else 2 / shape[-1] ** 0.5
        state[name] = torch.randn(shape, generator=draws) * spread
    path = tmp_path_factory.mktemp("dinov2") / "w.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def model(weights: Path) -> torch.nn.Module:
    return dinov2.load(weights, WIDTH, DEPTH, HEADS)


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *size), generator=draws, dtype=torch.uint8)


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.75."""
    a, t = -0.75, np.abs(distance)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def interpolation(grid: int, side: int) -> np.ndarray:
    """The matrix [grid, side] of Meta's resampling along one axis, edges repeated."""
    matrix = np.zeros((grid, side))
    for i in range(grid):
        place = (i + 0.5) * side / (grid + 0.1) - 0.5
        for tap in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            matrix[i, np.clip(tap, 0, side - 1)] += cubic(place - tap)
    return matrix


def metas_positions(embedding: np.ndarray, grid: int = 16, side: int = 37) -> np.ndarray:
    """[1 + grid * grid, D] from [1 + side * side, D]."""
    matrix = interpolation(grid, side)
    patches = embedding[1:].reshape(side, side, -1)
    patches = np.einsum("yi,xj,ijd->yxd", matrix, matrix, patches)
    return np.concatenate([embedding[:1], patches.reshape(grid * grid, -1)])


def norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * weight + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + torch.erf(torch.from_numpy(x) / 2**0.5).numpy())


def by_hand(state: dict[str, np.ndarray], image: torch.Tensor) -> np.ndarray:
    """The class token [D] of one uint8 [3, h, w] image, in float64, PIL doing the resizing."""
    planes = [Image.fromarray(plane.numpy().astype(np.float32)) for plane in image]
    resized = [np.asarray(p.resize((224, 224), Image.Resampling.BICUBIC)) for p in planes]
    x = np.stack(resized).astype(np.float64) / 255  # [3, 224, 224]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = (x - mean[:, None, None]) / std[:, None, None]
    patches = x.reshape(3, 16, 14, 16, 14).transpose(1, 3, 0, 2, 4).reshape(256, -1)
    patches = patches @ state["patch_embed.proj.weight"].reshape(WIDTH, -1).T
    patches = patches + state["patch_embed.proj.bias"]
    x = np.concatenate([state["cls_token"][0], patches]) + metas_positions(state["pos_embed"][0])
    for i in range(DEPTH):
        w = {key.split(".", 2)[2]: v for key, v in state.items() if key.startswith(f"blocks.{i}.")}
        y = norm(x, w["norm1.weight"], w["norm1.bias"])
        qkv = y @ w["attn.qkv.weight"].T + w["attn.qkv.bias"]  # [257, 3 * D]
        q, k, v = qkv.reshape(257, 3, HEADS, WIDTH // HEADS).transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH // HEADS)
        weight = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weight / weight.sum(-1, keepdims=True)) @ v
        y = mixed.transpose(1, 0, 2).reshape(257, WIDTH)
        x = x + w["ls1.gamma"] * (y @ w["attn.proj.weight"].T + w["attn.proj.bias"])
        y = norm(x, w["norm2.weight"], w["norm2.bias"])
        y = gelu(y @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"])
        x = x + w["ls2.gamma"] * (y @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"])
    return norm(x, state["norm.weight"], state["norm.bias"])[0]


@pytest.mark.parametrize("size", [(40, 40), (60, 35), (300, 260)])
def test_the_class_token_of_a_network_written_out_by_hand(
    model: torch.nn.Module, weights: Path, size: tuple[int, int]
) -> None:
    loaded = torch.load(weights, weights_only=True)
    state = {name: value.double().numpy() for name, value in loaded.items()}
    images = pictures(2, size)
    seen = features.see(model, images)
    assert seen.keys() == {"features"}
    expected = np.stack([by_hand(state, image) for image in images])
    assert np.abs(expected[0] - expected[1]).max() > 0.05
    np.testing.assert_allclose(seen["features"].numpy(), expected, rtol=1e-3, atol=2e-4)


def test_positions_are_resampled_as_by_meta_and_not_as_by_timm() -> None:
    draws = torch.Generator().manual_seed(1)
    embedding = torch.randn(1, 1 + 37 * 37, 5, generator=draws)
    ours = dinov2.resampled(embedding, 16)
    assert ours.shape == (1, 257, 5)
    expected = metas_positions(embedding[0].double().numpy())
    np.testing.assert_allclose(ours[0].numpy(), expected, atol=1e-5)

    from timm.layers import resample_abs_pos_embed

    theirs = resample_abs_pos_embed(embedding, [16, 16])
    assert float((theirs - ours).abs().max()) > 0.1  # it does antialias


def test_positions_of_the_right_size_are_kept() -> None:
    embedding = torch.randn(1, 257, 5)
    assert dinov2.resampled(embedding, 16) is embedding


def test_grey_and_batches(model: torch.nn.Module) -> None:
    grey = pictures(3, (20, 20), 2)[:, :1]
    whole = features.see(model, grey, patch=10)
    assert whole.keys() == {"features", "patch"}
    colour = features.see(model, grey.repeat(1, 3, 1, 1), patch=10, batch=2)
    for view, values in colour.items():
        torch.testing.assert_close(values, whole[view], rtol=1e-4, atol=1e-5)


def test_the_large_network_takes_metas_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All of it but the values: each tensor of the file is one zero, seen in the right shape."""
    state = {name: torch.zeros(1).expand(shape) for name, shape in metas_file(1024, 24).items()}
    assert sum(value.numel() for value in state.values()) == PARAMETERS
    torch.save(state, tmp_path / "w.pth")
    monkeypatch.setenv("RESOLUTE_DINOV2_WEIGHTS", str(tmp_path / "w.pth"))
    monkeypatch.setattr(dinov2, "resampled", lambda embedding, grid: embedding[:, : 1 + grid**2])
    network = features.load("dinov2").network
    assert network.num_features == extractors.facts("dinov2").features
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS - 1024 * (37**2 - 16**2 + 1)
    assert network.blocks[0].attn.num_heads == 16
    assert not any(p.requires_grad for p in network.parameters())
    assert not network.training


def test_another_network_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: Path
) -> None:
    monkeypatch.setenv("RESOLUTE_DINOV2_WEIGHTS", str(weights))
    with pytest.raises(extractors.ExtractorError, match=f"{weights} .*does not hold the weights"):
        features.load("dinov2")
    monkeypatch.setitem(features.LOADERS, "dinov2", partial(dinov2.load, width=WIDTH, depth=3))
    with pytest.raises(extractors.ExtractorError, match="does not hold the weights"):
        features.load("dinov2")
