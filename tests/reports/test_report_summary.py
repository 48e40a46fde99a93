"""The lines for a terminal; the paragraph is tested with whole reports."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from reports.summary import headline
from tests.reports.small_rows import FID, PATCH, row


def test_headline_of_one_seed() -> None:
    rows = [
        row("RoPE", 38.12, is_baseline=True),
        row("RPE-2D ×2 (RoPE)", 20.94),
        row("bicubic", 21.6),
        row("bicubic", 5.0, size=18),
    ]
    assert headline(rows) == [
        "FID (fashion-cnn) at 24×24 (2×), 1 seed: best is RPE-2D ×2 (RoPE) 20.9",
        "baseline: RoPE 38.1; difference of the best −17.2 (n = 1, no interval)",
        "then bicubic 21.6 | real images: 0.700",
    ]


def test_headline_of_several_seeds() -> None:
    rows = [row("RoPE", 38.0 + s, seed=s, is_baseline=True) for s in range(3)]
    rows += [row("PI", v, seed=s) for s, v in enumerate((28.0, 30.0, 29.0))]
    assert headline(rows) == [
        "FID (fashion-cnn) at 24×24 (2×), 3 seeds: best is PI 29.0 ± 1.0",
        "baseline: RoPE 39.0 ± 1.0; difference of the best −10.0 [−12.5, −7.5] over 3 seeds",
        "real images: 0.700",
    ]


def test_headline_where_the_baseline_is_best_or_nothing_is_there() -> None:
    rows = [row("RoPE", 20.0, is_baseline=True), row("PI", 30.0)]
    assert headline(rows) == [
        "FID (fashion-cnn) at 24×24 (2×), 1 seed: best is RoPE 20.0 (the baseline)",
        "then PI 30.0 | real images: 0.700",
    ]
    assert headline([row("RoPE", None)]) == ["no evaluation is finished yet"]
    assert headline([]) == ["no evaluation is finished yet"]


def test_headline_compares_no_two_protocols() -> None:
    rows = [
        row("RoPE", 20.0, protocol={"samples": 500}),
        row("PI", 9.0, protocol={"samples": 5000}),
    ]
    assert headline(rows) == [
        "FID (fashion-cnn) at 24×24 (2×): measured by more than one protocol, so rows are not "
        "compared"
    ]


def test_headline_tells_intervals_over_samples_and_the_lowest_patch_fid(tmp_path: Path) -> None:
    ones = np.ones(100, np.float32)
    for name, size in (("RoPE", 20.0), ("PI", 5.0)):
        save_file({FID: size * ones}, tmp_path / name)

    def both(fid: float, patch: float) -> dict[str, object]:
        return {"metrics": {FID: fid, PATCH: patch}, "floor": {FID: 0.7, PATCH: 1.5}}

    rows = [
        row(
            "RoPE",
            38.12,
            half=2.0,
            is_baseline=True,
            influence=tmp_path / "RoPE",
            **both(38.12, 80),
        ),
        row("PI", 20.94, half=1.0, influence=tmp_path / "PI", **both(20.94, 70)),
        row("bicubic", 21.6, half=1.0, **both(21.6, 65)),
    ]
    # 1.96 x sqrt(100 x 15^2) / 100 = 2.94
    assert headline(rows) == [
        "FID (fashion-cnn) at 24×24 (2×), 1 seed: best is PI 20.9 [19.9, 21.9]",
        "baseline: RoPE 38.1 [36.1, 40.1]; difference of the best −17.2 [−20.1, −14.2] over "
        "samples",
        "then bicubic 21.6 | real images: 0.700",
        "patch FID (fashion-cnn) at 24×24 (2×): lowest is bicubic 65.0 | baseline: 80.0 | "
        "real images: 1.50",
    ]


def test_headline_calls_no_marked_figure_best() -> None:
    few = {"marks": {FID: "few"}}
    assert headline([row("RoPE", 20.0), row("PI", 9.0, **few)]) == [
        "FID (fashion-cnn) at 24×24 (2×), 1 seed: best is RoPE 20.0",
        "then PI 9.00 ‡ | real images: 0.700",
    ]
    assert headline([row("RoPE", 20.0, **few)]) == [
        "FID (fashion-cnn) at 24×24 (2×): every figure is marked ‡ (few), so none is called best"
    ]
    assert headline([row("RoPE", 20.0, **few), row("PI", float("nan"))]) == [
        "FID (fashion-cnn) at 24×24 (2×): no figure is finite and without a mark, so none is "
        "called best"
    ]


def test_headline_prefers_what_the_baseline_has_and_a_true_reference() -> None:
    rows = [row("RoPE", 20.0, is_baseline=True), row("PI", 9.0), row("other", 1.0, size=48)]
    assert headline(rows)[0].startswith("FID (fashion-cnn) at 24×24 (2×), 1 seed: best is PI 9.00")
    enlarged = {"size": 36, "protocol": {"upsampled": 0.25}}
    rows += [row("RoPE", 30.0, is_baseline=True, **enlarged), row("PI", 5.0, **enlarged)]
    assert headline(rows)[0].startswith("FID (fashion-cnn) at 24×24 (2×), 1 seed: best is PI 9.00")
    assert headline(rows[3:])[0] == (
        "FID (fashion-cnn) at 36×36 (3×) (reference 25 % upsampled), 1 seed: best is PI 5.00"
    )


def test_headline_says_why_no_patch_fid_is_best() -> None:
    both = {"metrics": {FID: 20.0, PATCH: 80.0}}
    reason = "20 samples for 64 dimensions"
    few = row("RoPE", 20.0, **both, marks={PATCH: reason})
    assert headline([few])[-1] == (
        f"patch FID (fashion-cnn) at 24×24 (2×): every figure is marked ‡ ({reason}), so none is "
        "called best"
    )
    other = row("PI", 30.0, **both, protocol={"extractors": {"fashion-cnn": {"patch": 3}}})
    assert headline([row("RoPE", 20.0, **both), other])[-1] == (
        "patch FID (fashion-cnn) at 24×24 (2×): measured by more than one protocol, so rows are "
        "not compared"
    )
