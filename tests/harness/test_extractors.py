"""Extractors without their networks: where weights are found, refused and downloaded."""

import dataclasses
import hashlib
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import extractors
from harness.extractors import ExtractorError, facts, kinds_of, metric_name, patch_side

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
VARIABLE = "RESOLUTE_INCEPTION_WEIGHTS"
INCEPTION = "inception-v3-compat"


@pytest.fixture(autouse=True)
def nothing_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights of the machine that the tests run on are seen."""
    monkeypatch.setenv("RESOLUTE_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for known in extractors.FACTS.values():
        if known.variable:
            monkeypatch.delenv(known.variable, raising=False)


@pytest.fixture
def expected(monkeypatch: pytest.MonkeyPatch) -> extractors.Facts:
    """Inception's facts, with the first digits of CONTENT's hash as the published ones."""
    known = dataclasses.replace(facts(INCEPTION), sha256=SHA256[:8])
    monkeypatch.setitem(extractors.FACTS, INCEPTION, known)
    return known


def put(folder: Path, name: str = facts(INCEPTION).file_name, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


# ---- facts


def test_metric_names() -> None:
    assert metric_name("fid", INCEPTION) == "fid"
    assert metric_name("patch-fid", "dinov2") == "patch-fid.dinov2"
    assert metric_name("is", "fashion-cnn") == "is.fashion-cnn"


def test_kinds_are_those_that_the_extractor_can_give() -> None:
    assert kinds_of(INCEPTION) == kinds_of("fashion-cnn") == extractors.KINDS
    assert set(extractors.KINDS) - set(kinds_of("dinov2")) == {"is", "sfid"}
    for name, known in extractors.FACTS.items():
        assert ("is" in kinds_of(name)) == (known.classes > 0)
        assert ("sfid" in kinds_of(name)) == (known.spatial > 0)


@given(
    name=st.sampled_from(list(extractors.FACTS)),
    height=st.integers(1, 2048),
    width=st.integers(1, 2048),
)
def test_patches_fit_the_image_and_are_never_shrunk(name: str, height: int, width: int) -> None:
    side = patch_side(name, (height, width))
    assert 1 <= side <= min(height, width)
    assert side <= facts(name).side
    assert side == patch_side(name, (width, height))


def test_patch_sides_of_usual_sizes() -> None:
    assert [patch_side("fashion-cnn", (n, n)) for n in (12, 18, 24, 32, 96)] == [6, 9, 12, 16, 32]
    assert [patch_side(INCEPTION, (n, n)) for n in (256, 512, 1024)] == [128, 256, 299]


def test_unknown_names_say_what_there_is() -> None:
    for use in (facts, kinds_of, extractors.weights_file, extractors.weights_sha256):
        with pytest.raises(ExtractorError, match=r"there are: .*did you mean 'dinov2'"):
            use("dino2")


# ---- where weights are found


def test_order_of_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, expected: extractors.Facts
) -> None:
    hub = put(tmp_path / "torch" / "hub" / "checkpoints")
    assert extractors.weights_file(INCEPTION) == hub
    own = put(tmp_path / "own")
    assert extractors.weights_file(INCEPTION) == own
    elsewhere = put(tmp_path / "elsewhere", "any-name.bin")
    monkeypatch.setenv(VARIABLE, str(elsewhere))
    assert extractors.weights_file(INCEPTION) == elsewhere
    assert extractors.weights_sha256(INCEPTION) == SHA256


def test_torch_hubs_usual_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub = put(tmp_path / "cache" / "torch" / "hub" / "checkpoints")
    assert extractors.weights_file(INCEPTION) == hub


def test_paths_do_not_depend_on_the_folder_of_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(tmp_path / "near", "w.pth")
    monkeypatch.chdir(tmp_path / "near")
    monkeypatch.setenv(VARIABLE, "w.pth")
    assert extractors.weights_file(INCEPTION) == tmp_path / "near" / "w.pth"


@pytest.mark.parametrize("name", [INCEPTION, "dinov2"])
def test_missing_weights_say_which_and_from_where_and_where_to(name: str, tmp_path: Path) -> None:
    known = facts(name)
    with pytest.raises(ExtractorError) as caught:
        extractors.weights_sha256(name)
    words = (name, known.file_name, known.url, known.variable, str(tmp_path / "own"))
    for word in (*words, f"python -m harness.extractors {name}"):
        assert word in str(caught.value)


def test_a_variable_that_names_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put(tmp_path / "own")  # is not taken instead: the user said which
    for wrong in (tmp_path / "nowhere.pth", tmp_path):
        monkeypatch.setenv(VARIABLE, str(wrong))
        with pytest.raises(ExtractorError, match=f"{VARIABLE} says .* at {wrong}, but there is no"):
            extractors.weights_sha256(INCEPTION)


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, "")
    own = put(tmp_path / "own")
    assert extractors.weights_file(INCEPTION) == own


def test_another_file_than_the_published_one(tmp_path: Path, expected: extractors.Facts) -> None:
    path = put(tmp_path / "own", content=CONTENT[:-1])
    cut = hashlib.sha256(CONTENT[:-1]).hexdigest()
    with pytest.raises(ExtractorError, match=f"{path} is not the published.* {cut}.* {SHA256[:8]}"):
        extractors.weights_sha256(INCEPTION)


def test_dinov2_has_no_published_hash_and_is_recorded(tmp_path: Path) -> None:
    put(tmp_path / "own", facts("dinov2").file_name)
    assert extractors.weights_sha256("dinov2") == SHA256


def test_the_shipped_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = facts("fashion-cnn")
    shipped = hashlib.sha256(known.weights.read_bytes()).hexdigest()
    assert extractors.weights_sha256("fashion-cnn") == shipped

    weights = tmp_path / "w.safetensors"
    moved = dataclasses.replace(known, weights=weights)
    monkeypatch.setitem(extractors.FACTS, "fashion-cnn", moved)
    with pytest.raises(ExtractorError, match=rf"small_cnn --data \w+ --output {weights}"):
        extractors.weights_sha256("fashion-cnn")
    shutil.copy(known.weights, weights)
    assert extractors.weights_sha256("fashion-cnn") == shipped
    weights.write_bytes(weights.read_bytes() + b"\0")  # a changed file is read again
    assert extractors.weights_sha256("fashion-cnn") != shipped


# ---- the command


class Publisher(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; /short announces more than it sends, /other sends something else."""

    def do_GET(self) -> None:
        if self.path == "/gone":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) * (2 if self.path == "/short" else 1)))
        self.end_headers()
        self.wfile.write(CONTENT[::-1] if self.path == "/other" else CONTENT)

    def log_message(self, *_: object) -> None:
        """Not into the tests' output."""


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Publisher) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def published(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    known = dataclasses.replace(facts(INCEPTION), url=url)
    monkeypatch.setitem(extractors.FACTS, INCEPTION, known)


def test_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, expected, publisher: str, capsys
) -> None:
    published(monkeypatch, f"{publisher}/good")
    assert extractors.main([INCEPTION]) == 0
    path = tmp_path / "own" / expected.file_name
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == [expected.file_name]
    assert capsys.readouterr().out == f"{path}\nsha256 {SHA256}\n"

    published(monkeypatch, f"{publisher}/gone")  # what is there is not fetched again
    assert extractors.main([INCEPTION]) == 0


def test_a_download_replaces_a_wrong_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, expected, publisher: str
) -> None:
    published(monkeypatch, f"{publisher}/good")
    path = put(tmp_path / "own", content=b"cut sh")
    assert extractors.obtain(INCEPTION) == path
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("page", "message"), [("gone", "404"), ("short", "broke off"), ("other", "sha256")]
)
def test_failed_downloads_leave_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, expected, publisher: str, capsys,
    page: str, message: str,
) -> None:  # fmt: skip
    published(monkeypatch, f"{publisher}/{page}")
    assert extractors.main([INCEPTION]) == 2
    told = capsys.readouterr().err
    for word in (message, expected.file_name, str(tmp_path / "own"), VARIABLE):
        assert word in told
    assert "Traceback" not in told
    assert not list((tmp_path / "own").glob("*"))


def test_offline_and_unwritable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, expected, publisher: str, capsys
) -> None:
    published(monkeypatch, "http://127.0.0.1:9/w.pth")  # the port where nobody listens
    assert extractors.main([INCEPTION]) == 2
    assert f"put it into {tmp_path / 'own'}" in capsys.readouterr().err

    published(monkeypatch, f"{publisher}/good")
    (tmp_path / "own").write_text("a file where the folder should be")
    assert extractors.main([INCEPTION]) == 2
    assert f"put it into {tmp_path / 'own'}" in capsys.readouterr().err


def test_no_download_while_a_variable_names_a_wrong_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, expected, publisher: str, capsys
) -> None:
    published(monkeypatch, f"{publisher}/good")
    wrong = put(tmp_path, "w.pth", b"another")
    monkeypatch.setenv(VARIABLE, str(wrong))
    assert extractors.main([INCEPTION]) == 2
    assert f"{wrong} is not the published file" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


def test_the_list_says_which_can_be_used(tmp_path: Path, capsys) -> None:
    put(tmp_path / "own", facts("dinov2").file_name)
    assert extractors.main([]) == 0
    told = capsys.readouterr().out
    for word in (*extractors.FACTS, SHA256, str(tmp_path / "own" / facts("dinov2").file_name)):
        assert word in told
    assert "not usable: the weights of inception-v3-compat are not on this machine" in told


def test_the_shipped_one_needs_no_download(capsys) -> None:
    assert extractors.main(["fashion-cnn"]) == 0
    assert str(facts("fashion-cnn").weights) in capsys.readouterr().out


def test_an_unknown_name_as_a_user_sees_it() -> None:
    project = Path(extractors.__file__).parents[1]
    command = [sys.executable, "-m", "harness.extractors", "dino"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "no feature extractor 'dino'; there are: fashion-cnn, glyph-cnn, inception-v3-compat, "
        "dinov2; did you mean 'dinov2'?\n"
    )


def test_a_command_can_name_the_weights(
    tmp_path: Path, expected: extractors.Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "replaced")
    extractors.use_weights(f"{INCEPTION}={put(tmp_path)}")
    assert extractors.weights_sha256(INCEPTION) == SHA256
    for said in ("fashion-cnn=x", INCEPTION, f"{INCEPTION}="):
        with pytest.raises(ExtractorError, match="NAME=FILE"):
            extractors.use_weights(said)
    with pytest.raises(ExtractorError, match="did you mean"):
        extractors.use_weights("inception=x")
