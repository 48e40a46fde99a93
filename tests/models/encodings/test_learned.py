import pytest
import torch
import torch.nn.functional as F

from models.encodings.learned import LearnedTable
from models.geometry import inference_geometry


def made(lengths=(4, 7), width=6) -> LearnedTable:
    torch.manual_seed(0)
    return LearnedTable(lengths, width)


def read(table: LearnedTable, rows: list[float], cols: list[float]) -> torch.Tensor:
    code = table(torch.tensor([rows]), torch.tensor([cols]))
    return code.view(len(rows), len(cols), -1)


def test_whole_positions_are_the_tables_own_bit_for_bit():
    table = made()
    assert table.table.std().item() == pytest.approx(0.02, rel=0.2)
    whole = table(torch.arange(4.0)[None], torch.arange(7.0)[None])
    assert torch.equal(whole, table.table.flatten(0, 1)[None])
    assert torch.equal(read(table, [3, 1], [0, 0, 6]), table.table[[3, 1]][:, [0, 0, 6]])


def test_between_them_it_is_bilinear():
    table, t = made(), made().table
    measured = read(table, [1.25], [4.5])[0, 0]
    above, below = (t[1, 4] + t[1, 5]) / 2, (t[2, 4] + t[2, 5]) / 2
    assert torch.allclose(measured, 0.75 * above + 0.25 * below, atol=1e-7)


def test_the_edge_repeats_outside():
    table = made()
    assert torch.equal(read(table, [-0.5, 9], [-3, 6.5]), table.table[[0, 3]][:, [0, 6]])


def test_each_sample_has_its_own_positions():
    table = made()
    rows, cols = torch.tensor([[0.0, 1.5], [2.0, 3.0]]), torch.tensor([[0.0], [5.5]])
    together = table(rows, cols)
    for b in range(2):
        assert torch.equal(together[b : b + 1], table(rows[b : b + 1], cols[b : b + 1]))


def test_gradients_reach_what_was_read():
    table = made()
    read(table, [0.5], [2.0]).sum().backward()
    touched = table.table.grad.abs().sum(dim=2)
    assert touched.nonzero().tolist() == [[0, 2], [1, 2]]


@pytest.mark.parametrize(
    ("lengths", "grid"), [((6, 6), (9, 13)), ((4, 7), (4, 11)), ((5, 3), (5, 3))]
)
def test_ei_is_a_bilinear_resize_of_the_table(lengths, grid):
    geometry = inference_geometry(
        encoding="learned",
        theta=100.0,
        width=6,
        heads=1,
        train_grid=lengths,
        length=lengths,
        grid=grid,
        placement="contiguous",
        law="ei",
        law_scale="shared",
        attention_scale="none",
        batch=1,
        device="cpu",
    )
    table = made(lengths)
    measured = table(geometry.rows, geometry.cols).view(*grid, 6)
    picture = table.table.permute(2, 0, 1)[None]
    resized = F.interpolate(picture, grid, mode="bilinear", align_corners=False)
    assert torch.allclose(measured, resized[0].permute(1, 2, 0), atol=1e-7)


def test_half_precision_weights_are_read_in_float32():
    table = made().bfloat16()
    measured = table(torch.tensor([[100 / 128]]), torch.tensor([[3.0]]))
    assert measured.dtype == torch.float32
    assert not torch.equal(measured, measured.bfloat16().float())
