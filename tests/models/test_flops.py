import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.dit import DiT
from models.flops import flops
from models.geometry import inference_geometry


@pytest.mark.parametrize(("micro", "outputs"), [(False, 1), (True, 2)])
@pytest.mark.parametrize(
    ("shape", "heads", "grid"),
    [
        ({"channels": 1, "width": 32, "depth": 2, "mlp_ratio": 4, "patch": 2}, 2, (3, 5)),
        ({"channels": 4, "width": 48, "depth": 3, "mlp_ratio": 2.5, "patch": 1}, 3, (8, 8)),
    ],
)
def test_equals_what_torch_counts(shape, heads, grid, micro, outputs):
    model = DiT(
        **shape,
        classes=3,
        heads=heads,
        encoding="rope",
        qk_norm=True,
        micro_conditioning=micro,
        outputs=outputs,
    )
    geometry = inference_geometry(
        encoding="rope",
        theta=100.0,
        width=shape["width"],
        heads=heads,
        train_grid=grid,
        length=grid,
        grid=grid,
        placement="contiguous",
        law="extrapolate",
        law_scale="shared",
        attention_scale="none",
        batch=2,
        device="cpu",
    )
    x = torch.zeros(2, shape["channels"], grid[0] * shape["patch"], grid[1] * shape["patch"])
    condition = (torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    counter = FlopCounterMode(display=False)
    # The plain kernel, because the counter does not know the CPU's fused attention.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(x, *condition, geometry, torch.zeros(2, 4) if micro else None)
    counted = counter.get_total_flops()
    assert counted == 2 * flops(**shape, micro_conditioning=micro, grid=grid, outputs=outputs)


def test_matches_the_published_cost():
    # DiT-XL/2 at 256 x 256: 118.6 GFLOPs, where the paper counts multiply-adds.
    cost = flops(
        channels=4,
        width=1152,
        depth=28,
        mlp_ratio=4,
        patch=2,
        micro_conditioning=False,
        grid=(16, 16),
    )
    assert cost / 2 == pytest.approx(118.6e9, rel=0.01)
