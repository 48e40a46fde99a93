"""Columns: their names, their order, and the shares of a training."""

from reports.column import Column, all_columns, column_of, finals, shares

SMALL, LARGE = Column((16, 16)), Column((32, 32))
GUIDED = (("inference.guidance", "2"),)


def test_names() -> None:
    column = Column((24, 16), GUIDED, "1.5×", 0.125)
    assert column.title == "24×16 (1.5×) after 12.5 %, guidance=2"
    assert column.slug == "24x16-after-0.125-guidance-2"
    assert column.trained.title == "24×16 (1.5×), guidance=2"
    assert column.others == "guidance=2"


def test_of_a_measurement() -> None:
    asked = {"evaluate.resolution": "1.5x", "evaluate.after": 0.5, "inference.guidance": 2.0}
    config = {"evaluate": {"resolution": [24, 24], "after": 0.5}}
    measurement = {"column": asked, "config": config}
    assert column_of(measurement, [(16, 16)]) == Column((24, 24), GUIDED, "1.5×", 0.5)
    assert column_of(measurement, [(16, 16), (32, 32)]) == Column((24, 24), GUIDED, "", 0.5)
    del asked["evaluate.after"]  # one share for all: no column says it
    assert column_of(measurement, [(16, 24)]) == Column((24, 24), GUIDED)


def test_order_is_the_files_or_from_small_to_large() -> None:
    assert all_columns([[LARGE, SMALL], [LARGE, SMALL]]) == (LARGE, SMALL)
    other = Column((24, 24))
    assert all_columns([[LARGE, other], [other, SMALL]]) == (SMALL, other, LARGE)
    assert all_columns([]) == ()


def test_shares_of_a_training() -> None:
    half, guided = Column((16, 16), (), "", 0.5), Column((16, 16), GUIDED)
    early = Column((32, 32), (), "", 0.25)
    columns = (SMALL, half, guided, early)
    assert finals(columns) == (SMALL, guided, early)
    assert shares(columns, SMALL) == [half, SMALL]
    assert shares(columns, guided) == [guided]
