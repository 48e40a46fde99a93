"""The command that measures anybody's samples, on good files and on bad ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import evaluate, features, metrics
from harness.extractors import ExtractorError
from harness.npz import NpzWriter
from harness.pictures import write_png_folder
from tests.real import fashion
from tests.tiny import command

SIZE = (16, 12)
SAMPLES, REAL = 150, 300


def write(path: Path, images: torch.Tensor) -> Path:
    with NpzWriter(path, len(images), SIZE, 1) as writer:
        writer.write(images)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    held_out = fashion("test", 2 * SAMPLES, SIZE)
    write(folder / "samples.npz", held_out[:SAMPLES].flip(-2))
    write(folder / "held-out.npz", held_out[SAMPLES:])
    write(folder / "real.npz", fashion("train", REAL, SIZE))
    return folder


def measured(tmp_path: Path, *arguments: object) -> dict[str, dict[str, float]]:
    output = tmp_path / "result.json"
    assert evaluate.main([*map(str, arguments), "--output", str(output)]) == 0
    found: dict[str, dict[str, float]] = json.loads(output.read_text())
    return found


def test_figures_equal_those_computed_by_hand(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(
        tmp_path, "--samples", files / "samples.npz", "--reference", files / "real.npz",
        "--held-out", files / "held-out.npz",
    )  # fmt: skip
    model = features.load("fashion-cnn")
    seen = features.see(model, fashion("test", 2 * SAMPLES, SIZE)[:SAMPLES].flip(-2))
    real = features.see(model, fashion("train", REAL, SIZE))
    by_hand = metrics.frechet_distance(
        *(part(view.numpy()) for view in (seen["features"], real["features"])
          for part in (lambda x: x.mean(0, dtype=float), lambda x: np.cov(x, rowvar=False))),
    )  # fmt: skip
    assert found["metrics"]["fid.fashion-cnn"] == pytest.approx(by_hand, abs=1e-6)
    for name, value in found["metrics"].items():
        low, high = found["intervals"][name]  # type: ignore[misc]
        assert low <= value <= high
    assert found["floor"]["fid.fashion-cnn"] < found["metrics"]["fid.fashion-cnn"] / 2
    assert set(found["marks"]) == {"sfid.fashion-cnn"}
    told = capsys.readouterr().out
    for part in ("patch-fid.fashion-cnn", "samples.npz", "real.npz", "crops of 6", "at least 449"):
        assert part in told


def test_a_folder_of_pictures_gets_the_same_figures(files: Path, tmp_path: Path) -> None:
    write_png_folder(tmp_path / "png", [fashion("test", SAMPLES, SIZE).flip(-2)])
    from_folder = measured(
        tmp_path, "--samples", tmp_path / "png", "--reference", files / "real.npz"
    )
    write(tmp_path / "same.npz", fashion("test", SAMPLES, SIZE).flip(-2))
    from_npz = measured(
        tmp_path, "--samples", tmp_path / "same.npz", "--reference", files / "real.npz"
    )
    assert from_folder["metrics"] == pytest.approx(from_npz["metrics"], abs=1e-4)
    assert from_folder["samples"]["sha256"] != from_npz["samples"]["sha256"]  # grey, and RGB


@pytest.mark.slow
def test_a_reference_file_can_be_used_in_place_of_images(files: Path, tmp_path: Path) -> None:
    plain = measured(
        tmp_path, "--samples", files / "samples.npz", "--reference", files / "real.npz",
        "--patch", 5,
    )  # fmt: skip
    for name in ("ref.safetensors", "ref.npz"):
        ended = command(
            "harness.reference", "--images", files / "real.npz", "--resolution", "16x12",
            "--extractors", "fashion-cnn", "--patch", 5, "--output", tmp_path / name,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        again = measured(
            tmp_path, "--samples", files / "samples.npz", "--reference", tmp_path / name
        )
        assert again["metrics"] == pytest.approx(plain["metrics"], abs=1e-9)


def test_statistics_beside_the_samples_are_not_used(files: Path, tmp_path: Path) -> None:
    """Else a file measured against itself would get 0 by construction."""
    images = np.load(files / "samples.npz")["arr_0"]
    moments = {"mu": np.zeros(2048), "sigma": np.eye(2048)}
    np.savez(tmp_path / "both.npz", arr_0=images, **moments)
    found, plain = (
        measured(tmp_path, "--samples", path, "--reference", files / "real.npz")["metrics"]
        for path in (tmp_path / "both.npz", files / "samples.npz")
    )
    assert found == plain


def test_a_killed_command_goes_on_from_its_features(files: Path, tmp_path: Path) -> None:
    write(tmp_path / "many.npz", fashion("test", 600, SIZE))
    arguments = ("--samples", tmp_path / "many.npz", "--reference", files / "real.npz",
                 "--features", tmp_path / "features")  # fmt: skip
    first = measured(tmp_path, *arguments)
    shards = sorted((tmp_path / "features").rglob("*.safetensors"))
    assert len(shards) == 3
    shards[1].unlink()
    before = [shards[number].stat().st_mtime_ns for number in (0, 2)]
    assert measured(tmp_path, *arguments) == first
    assert [shards[number].stat().st_mtime_ns for number in (0, 2)] == before
    assert shards[1].exists()


def test_the_floor_is_a_fair_draw_of_a_sorted_file(files: Path, tmp_path: Path) -> None:
    """Bright images first: the first ones alone would be another distribution."""
    held_out = fashion("test", 1500, SIZE)[300:]
    bright = held_out.float().mean(dim=(1, 2, 3)).argsort(descending=True)
    write(tmp_path / "sorted.npz", held_out[bright])
    found = measured(
        tmp_path, "--samples", files / "held-out.npz", "--reference", files / "real.npz",
        "--held-out", tmp_path / "sorted.npz",
    )  # fmt: skip
    assert found["floor"]["fid.fashion-cnn"] < 2 * found["metrics"]["fid.fashion-cnn"]


def test_weights_that_somebody_named_are_not_left_out(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = ["--samples", str(files / "samples.npz"), "--reference", str(files / "real.npz")]
    (tmp_path / "other.pth").write_bytes(b"not these")
    for file, told in (("none.pth", "there is no such file"), ("other.pth", "its sha256 is")):
        monkeypatch.setenv("RESOLUTE_INCEPTION_WEIGHTS", str(tmp_path / file))
        assert evaluate.main(arguments) == 2
        assert told in capsys.readouterr().err.replace("\n", " ")


def test_copies_among_the_samples_are_told(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "copies.npz", fashion("test", 30, SIZE).repeat(2, 1, 1, 1))
    found = measured(
        tmp_path, "--samples", tmp_path / "copies.npz", "--reference", files / "real.npz"
    )
    assert found["samples"]["distinct"] == 30
    assert "only 30 of the samples are distinct" in capsys.readouterr().out


def bad(tmp_path: Path, name: str, **arrays: np.ndarray) -> Path:
    np.savez(tmp_path / name, **arrays)  # type: ignore[arg-type]
    return tmp_path / name


def test_bad_input_is_refused_with_what_to_do(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, real = files / "samples.npz", files / "real.npz"
    pixels = np.load(samples)["arr_0"]
    truncated = tmp_path / "truncated.npz"
    truncated.write_bytes(samples.read_bytes()[:-5000])
    cases = [
        ((bad(tmp_path, "size.npz", arr_0=pixels[:, :12]), real), "12x12, those of the reference"),
        ((bad(tmp_path, "few.npz", arr_0=pixels[:1]), real), "few.npz: holds 1 image, at least 2"),
        ((bad(tmp_path, "nan.npz", arr_0=np.full((9, 16, 12, 3), np.nan)), real), "NaN"),
        ((truncated, real), "truncated"),
        ((files / "sample.npz", real), "samples.npz"),
        ((samples, real, "--extractors", "fashion-cn"), "did you mean 'fashion-cnn'"),
        ((samples, real, "--extractors", "inception-v3-compat"), "RESOLUTE_INCEPTION_WEIGHTS"),
        ((samples, real, "--patch", "13"), "13"),
        ((samples, real, "--device", "cudda"), "cudda"),
        ((samples, real, "--output", tmp_path), "is no regular file"),
        ((samples, real, "--output", samples / "x.json"), "cannot be written"),
        ((samples, real, "--held-out", samples), "holds the images of the samples"),
        (
            (
                samples,
                bad(tmp_path, "adm.npz", arr_0=pixels, mu=np.zeros(2048), sigma=np.eye(2048)),
            ),
            "the weights of inception-v3-compat are not on this machine",
        ),
        ((samples, real, "--held-out", bad(tmp_path, "less.npz", arr_0=pixels[:20])), "as many as"),
    ]
    for (one, other, *more), told in cases:
        arguments = ["--samples", one, "--reference", other, *more]
        assert evaluate.main([str(a) for a in arguments]) == 2, told
        ended = capsys.readouterr()
        assert told in ended.err
        assert ended.out == ""


@pytest.mark.slow
def test_a_reference_of_another_kind_is_refused(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = command(
        "harness.reference", "--images", files / "real.npz", "--resolution", "16x12",
        "--extractors", "fashion-cnn", "--output", tmp_path / "ref.safetensors",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    arguments = ["--samples", str(files / "samples.npz"), "--reference"]
    reference = str(tmp_path / "ref.safetensors")
    for option, value, told in (
        ("--extractors", "dinov2", "holds features of fashion-cnn"),
        ("--patch", "5", "was built with 6"),
        ("--manifold", "100", f"was built with {REAL}"),
    ):
        assert evaluate.main([*arguments, reference, option, value]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_has_no_traceback(files: Path) -> None:
    ended = command("harness.evaluate", "--samples", files / "none.npz", "--reference", files)
    assert ended.returncode == 2
    assert "none.npz" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_weights_that_are_missing_are_an_error_of_their_own() -> None:
    with pytest.raises(ExtractorError, match="RESOLUTE_DINOV2_WEIGHTS"):
        features.load("dinov2")
