"""The comparison with published figures: the real one where its files are, its parts anywhere."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from benchmarks import known_answers
from harness import extractors, features
from harness.errors import UserError

VARIABLES = ("RESOLUTE_ADM_REFERENCE", "RESOLUTE_ADM_SAMPLES")
UNSET = [name for name in VARIABLES if not os.environ.get(name)]


@pytest.mark.slow
@pytest.mark.skipif(bool(UNSET), reason=f"{' and '.join(UNSET)} not set: ADM's own .npz batches")
def test_published_figures_of_adms_samples() -> None:
    reference, samples = (os.environ[name] for name in VARIABLES)
    assert known_answers.main(["--reference", reference, "--samples", samples]) == 0


def test_skipped_without_files(capsys) -> None:
    assert known_answers.main([]) == 0
    assert capsys.readouterr().out.startswith("skipped: --reference and --samples not given")
    assert known_answers.main(["--reference", "r.npz"]) == 0
    assert capsys.readouterr().out.startswith("skipped: --samples not given")


@pytest.mark.parametrize("kind", known_answers.ANSWERS)
def test_each_figure_must_agree(kind: str, capsys) -> None:
    published = {name: answer.published for name, answer in known_answers.ANSWERS.items()}
    tolerance = known_answers.ANSWERS[kind].tolerance
    assert known_answers.agree(published)
    assert known_answers.agree(published | {kind: published[kind] - 0.99 * tolerance})
    assert "DISAGREES" not in capsys.readouterr().out
    for wrong in (published[kind] + 1.01 * tolerance, float("nan")):
        assert not known_answers.agree(published | {kind: wrong})
        assert capsys.readouterr().out.count("DISAGREES") == 1


def pixels(count: int, seed: int, bright: float) -> np.ndarray:
    """Smooth pictures [N, 16, 16, 3], uint8."""
    coarse = np.random.default_rng(seed).random((count, 4, 4, 3)) * bright
    return (coarse.repeat(4, 1).repeat(4, 2) * 255).astype(np.uint8)


def distance(mu1: np.ndarray, cov1: np.ndarray, mu2: np.ndarray, cov2: np.ndarray) -> float:
    """Of two Gaussians, the second of full rank (a channel of the first may be dead)."""
    root = scipy.linalg.sqrtm(cov2)
    values = np.linalg.eigvalsh(root @ cov1 @ root).clip(0)
    trace = np.trace(cov1 + cov2) - 2 * np.sqrt(values).sum()
    return float(((mu1 - mu2) ** 2).sum() + trace)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A reference with made-up statistics, and samples."""
    draws = np.random.default_rng(0)
    known = extractors.facts("fashion-cnn")
    statistics = {}
    for ending, width in (("", known.features), ("_s", known.spatial)):
        rows = draws.standard_normal((2 * width, width))
        statistics |= {f"mu{ending}": rows.mean(0), f"sigma{ending}": np.cov(rows, rowvar=False)}
    np.savez(tmp_path / "reference.npz", arr_0=pixels(60, 1, 1.0), **statistics)
    np.savez(tmp_path / "samples.npz", arr_0=pixels(600, 2, 0.9))
    return tmp_path / "reference.npz", tmp_path / "samples.npz"


def test_figures_against_independent_computations(files: tuple[Path, Path]) -> None:
    found = known_answers.figures(*files, "fashion-cnn", "cpu")
    assert found.keys() == known_answers.ANSWERS.keys()
    model = features.load("fashion-cnn")
    seen, real = (
        features.see(model, torch.from_numpy(np.load(file)["arr_0"]).permute(0, 3, 1, 2))
        for file in (files[1], files[0])
    )
    stored = np.load(files[0])
    for kind, view, ending in (("fid", "features", ""), ("sfid", "spatial", "_s")):
        x = seen[view].double().numpy()
        expected = distance(
            x.mean(0), np.cov(x, rowvar=False), stored[f"mu{ending}"], stored[f"sigma{ending}"]
        )
        assert found[kind] == pytest.approx(expected, rel=1e-5)
    p = torch.softmax(seen["logits"].double(), 1)
    divergence = (p * (p.log() - p.mean(0).log())).sum(1).mean()
    assert found["is"] == pytest.approx(float(divergence.exp()), rel=1e-9)  # one part of all
    x, y = seen["features"].double(), real["features"].double()
    for kind, a, b in (("precision", x, y), ("recall", y, x)):
        balls = torch.cdist(b, b).kthvalue(4, 1).values  # the nearest is the sample itself
        within = (torch.cdist(a, b) <= balls).any(1).double().mean()
        assert found[kind] == pytest.approx(float(within), abs=1e-9)


def test_bad_files(files: tuple[Path, Path], tmp_path: Path, capsys, monkeypatch) -> None:
    reference, samples = files

    def said(*arguments: str) -> str:
        assert known_answers.main(list(arguments)) == 2
        return capsys.readouterr().err

    nowhere = str(tmp_path / "nowhere.npz")
    assert nowhere in said("--reference", str(reference), "--samples", nowhere)
    both = ("--reference", str(reference), "--samples", str(samples))
    assert "has 600 images; the published figures are of 50000" in said(*both)

    monkeypatch.setattr(known_answers, "SAMPLES", 600)
    monkeypatch.setenv("RESOLUTE_INCEPTION_WEIGHTS", "")  # put back after the test
    wrong = tmp_path / "w.pth"
    assert f"weights of inception-v3-compat are at {wrong}" in said(*both, "--weights", str(wrong))
    wrong.write_bytes(b"not weights")
    assert f"{wrong} is not the published file" in said(*both, "--weights", str(wrong))

    np.savez(reference, arr_0=pixels(60, 1, 1.0))
    assert "lacks mu, mu_s, sigma, sigma_s" in said(*both)
    np.savez(samples, arr_0=pixels(600, 2, 1.0)[:, :8])
    assert "has images of (8, 16)" in said(*both)


def test_statistics_of_another_network(files: tuple[Path, Path]) -> None:
    reference, samples = files
    stored = dict(np.load(reference))
    np.savez(reference, **stored | {"mu": stored["mu"][:5], "sigma": stored["sigma"][:5, :5]})
    with pytest.raises(UserError, match="mu has 5 values, fashion-cnn gives 64"):
        known_answers.figures(reference, samples, "fashion-cnn", "cpu")
