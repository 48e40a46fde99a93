import subprocess
import sys

import pytest
import torch

from models import names
from models.encodings.attention_scale import ATTENTION_SCALES
from models.encodings.laws import LAWS, Axis
from models.geometry import AXIS_CHANNELS
from models.positions.placements import PLACEMENTS
from models.positions.samplers import SAMPLERS


@pytest.mark.parametrize(
    ("listed", "table"),
    [
        (names.ENCODINGS, AXIS_CHANNELS),
        (names.ENCODINGS, names.LAWS_FOR),
        (names.SAMPLERS, SAMPLERS),
        (names.PLACEMENTS, (*PLACEMENTS, "random")),  # a draw of one of the samplers
        (names.LAWS, LAWS),
        (names.ATTENTION_SCALES, ATTENTION_SCALES),
    ],
)
def test_names_equal_the_tables(listed, table):
    assert listed == tuple(table)


def test_laws_of_an_encoding_are_laws():
    for laws in names.LAWS_FOR.values():
        assert set(laws) <= set(names.LAWS)
        assert laws[0] == "extrapolate"
    assert set(names.TIME_AWARE) <= set(names.LAWS)


def test_the_laws_that_see_the_time_are_named():
    seen = {
        name
        for name, law in LAWS.items()
        if not torch.equal(law(Axis(100, 16, 2, 6, 0.1)), law(Axis(100, 16, 2, 6, 0.9)))
    }
    assert seen == set(names.TIME_AWARE)


def test_names_import_no_torch():
    script = "import sys, models.names; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": root()}).returncode == 0
    )


def test_require_names_the_choices_and_the_nearest():
    with pytest.raises(ValueError, match=r"sampler 'randomised' is not one of consecutive, rand"):
        names.require("sampler", "randomised", names.SAMPLERS)
    with pytest.raises(ValueError, match=r"did you mean 'randomized'\?"):
        names.require("sampler", "randomised", names.SAMPLERS)
    names.require("sampler", "randomized", names.SAMPLERS)


def root() -> str:
    return names.__file__.rpartition("/models/")[0]
