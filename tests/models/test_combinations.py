"""Every encoding, law, placement and sampler in one model, on grids of unequal sides."""

import pytest
import torch

from models.dit import DiT
from models.geometry import inference_geometry, training_geometry
from models.names import ATTENTION_SCALES, ENCODINGS, LAW_SCALES, LAWS_FOR, TIME_AWARE
from models.positions.placements import PLACEMENTS
from models.positions.samplers import SAMPLERS

WIDTH, HEADS, DEPTH = 16, 1, 1
TRAIN, LENGTH = (3, 4), (4, 7)
THETA = 100.0


@pytest.fixture(params=ENCODINGS)
def model(request) -> DiT:
    torch.manual_seed(0)
    model = DiT(
        channels=1,
        classes=2,
        width=WIDTH,
        depth=DEPTH,
        heads=HEADS,
        mlp_ratio=1.0,
        patch=1,
        encoding=request.param,
        qk_norm=True,
        micro_conditioning=False,
        lengths=LENGTH,
        theta=10.0,
    )
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def uniforms(*batch: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = {"uniform_h": (*batch, LENGTH[0]), "uniform_w": (*batch, LENGTH[1]), "shared": batch}
    return {name: torch.rand(*size, generator=generator) for name, size in sizes.items()}


def works(model: DiT, geometry) -> None:
    h, w = geometry.rows.shape[-1], geometry.cols.shape[-1]
    x = torch.randn(2, 1, h, w, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        out = model(x, torch.tensor([0.2, 0.9]), torch.tensor([0, 2]), geometry)
    assert out.shape == x.shape
    assert out.isfinite().all()
    assert out.count_nonzero() > 0


def test_every_law_places_every_grid(model):
    for law in LAWS_FOR[model.encoding]:
        for placement in (*PLACEMENTS, *SAMPLERS):
            for grid in ((3, 2), (4, 7), (5, 8), (9, 2)):
                inside = grid[0] <= LENGTH[0] and grid[1] <= LENGTH[1]
                if placement in SAMPLERS and not inside:
                    continue
                drawn = {"sampler": placement, **uniforms(2)} if placement in SAMPLERS else {}
                geometry = inference_geometry(
                    encoding=model.encoding,
                    theta=THETA,
                    width=WIDTH,
                    heads=HEADS,
                    train_grid=TRAIN,
                    length=LENGTH,
                    grid=grid,
                    placement="random" if drawn else placement,
                    law=law,
                    law_scale=LAW_SCALES[grid[0] % 2],
                    attention_scale=ATTENTION_SCALES[grid[1] % len(ATTENTION_SCALES)],
                    batch=2,
                    device="cpu",
                    time=0.4 if law in TIME_AWARE else 0.0,
                    **drawn,
                )
                works(model, geometry)


def test_every_sampler_trains_every_grid(model):
    rotary = model.encoding in ("rope", "rope-mixed")
    for sampler in SAMPLERS:
        for grid in (TRAIN, LENGTH, (1, 5)):
            for batch in ((2,), (DEPTH, 2)) if rotary else ((2,),):
                drawn = uniforms(*batch).values()
                fixed = (model.encoding, sampler, THETA, WIDTH, HEADS, grid, LENGTH)
                works(model, training_geometry(*fixed, *drawn, "cpu"))
