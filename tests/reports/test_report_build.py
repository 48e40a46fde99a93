"""The report as a whole: its order, its files, what it does with half a sweep, and its command."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.claim import this_host
from harness.errors import UserError
from harness.files import write_atomic, write_json
from harness.record import run_folder
from reports.__main__ import main
from reports.render import build
from tests.reports.small_sweep import (
    ABLATION,
    FID,
    STAGED,
    STAGED_FID,
    write_result,
    write_samples,
    write_training,
)

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "report.md", "report.html", "headline.txt", "table.csv", "table.tex",
    "fid-fashion-cnn.png", "loss.png",
    "samples-12x12.png", "samples-18x18.png", "samples-24x24.png",
}  # fmt: skip

Grid = Callable[..., dict[str, Any]]
Fill = Callable[..., None]


def test_the_report_has_its_parts_in_order(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    report = build(record, tmp_path)
    assert report == tmp_path / "reports" / "small" / "report.md"
    assert {file.name for file in report.parent.iterdir()} == FILES
    text = report.read_text()
    assert re.findall(r"^#+ .*", text, re.MULTILINE) == [
        "# small",
        "## Results",
        "### FID and patch FID (fashion-cnn) ↓",
        "### sFID (fashion-cnn) ↓",
        "### IS (fashion-cnn) ↑",
        "### Precision (fashion-cnn) ↑",
        "### Recall (fashion-cnn) ↑",
        "### KID ×10³ (fashion-cnn) ↓",
        "### Density (fashion-cnn) ↑",
        "### Coverage (fashion-cnn) ↑",
        "## Difference to the baseline",
        "### FID and patch FID (fashion-cnn): difference to the baseline",
        "## FID against resolution",
        "## Training loss",
        "## Samples",
        "### 12×12 (1×), seed 0",
        "### 18×18 (1.5×), seed 0",
        "### 24×24 (2×), seed 0",
        "## Cost",
        "## Failed, missing, dropped",
        "## Provenance",
        "### Protocols",
        "### Code and machines",
    ]
    assert text.splitlines()[2:5] == [
        "**Does it hold up at 1.5x and 2x?**",
        "",
        "At 12×12 (1×) RoPE, extrapolated and 2 other rows, which coincide there, have the "
        "lowest FID, 10.0 [9.5, 10.5]; the baseline is among them. At 18×18 (1.5×) RPE-2D ×2 "
        "(RoPE) has the "
        "lowest FID, 15.0 [14.2, 15.8]; the baseline RoPE, extrapolated has 20.0, a difference "
        "of −5.00 [−5.78, −4.22] over samples, and the interval excludes 0. At 24×24 (2×) "
        "RPE-2D ×2 (RoPE) has the "
        "lowest FID, 20.9 [19.9, 22.0]; the baseline RoPE, extrapolated has 40.0, a difference "
        "of −19.1 [−20.6, −17.5] over samples, and the interval excludes 0. Detail, which FID "
        "hardly "
        "sees: at 24×24 (2×) RPE-2D ×2 (RoPE) has the lowest patch FID, 41.9 [39.8, 44.0]; the "
        "baseline RoPE, extrapolated has 80.0, a difference of −38.1 [−41.2, −35.0] over samples, "
        "and the interval excludes 0. Every row has one seed: an interval is the 95 % interval "
        "over the "
        "samples, that of a difference over paired samples (the same noise and labels); how much "
        "training seeds differ is not known.",
    ]
    assert (
        "FID, patch FID and sFID (fashion-cnn): no Inception FID, the features are those of "
        "fashion-cnn."
    ) in text
    assert "Patch FID is the same distance over a random crop" in text
    assert "Bars are 95 % intervals over the samples." in text
    assert "reconstruction" in text
    assert "Every evaluation is there." in text


def test_snapshots_have_a_part_of_their_own(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    """What is not of the end of the training stands there alone, and in table.csv."""
    record = grid(text=STAGED)
    fill(record, tmp_path, STAGED_FID)
    report = build(record, tmp_path)
    text = report.read_text()
    assert {file.name for file in report.parent.iterdir()} == {
        "report.md", "report.html", "headline.txt", "table.csv", "table.tex", "loss.png",
        "fid-fashion-cnn.png", "fid-fashion-cnn-compute.png",
        *(f"samples-{side}x{side}.png" for side in (12, 18, 24, 36, 48)),
    }  # fmt: skip
    assert "after 75 %" not in text[: text.index("## FID against training compute")]
    part = text[text.index("## FID against training compute") : text.index("## Training loss")]
    assert re.findall(r"^### .*", part, re.MULTILINE) == [
        "### Cost to reach the baseline's FID (fashion-cnn)",
        "### Cost to reach the baseline's patch FID (fashion-cnn)",
        *(f"### FID and patch FID (fashion-cnn) over training, {side}×{side} ↓"
          for side in (12, 18, 24, 36, 48)),
    ]  # fmt: skip
    assert "| method | 24×24 after 25 % · FID | 24×24 after 25 % · patch FID | 24×24 after" in part
    assert (
        "At 18×18 there is only RoPE, trained at 12: 20.0 [19.0, 21.0]. At 24×24 RoPE, trained at "
        "12 then 24 has the lowest FID, 11.0 [10.4, 11.6]; the baseline RoPE, trained at 24 has "
        "12.0, a difference of"
    ) in text
    assert "The reference of 36×36 and 48×48 is 100 % upsampled" in text.splitlines()[4]
    assert "20000 (ref36), 100 % upsampled" in text
    assert "Every evaluation is there." in text
    headline = (report.parent / "headline.txt").read_text().splitlines()
    assert headline[0].startswith("FID (fashion-cnn) at 24×24, 1 seed: best is RoPE, trained at 12")
    assert headline[-1].startswith("FID (fashion-cnn) 12.0 at 24×24, the baseline's at the end of")
    lines = (report.parent / "table.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 3 * 4 * 9
    assert sum(",36x36 after=0.75," in line for line in lines) == 3 * 9


def test_a_wide_html_table_breaks_lines_before_an_interval(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    page = build(record, tmp_path).with_name("report.html").read_text()
    assert ">20.0 [19.0,&nbsp;21.0]<" in page
    assert "<strong>15.0 [14.2,&nbsp;15.8]<" in page


def test_two_rows_that_coincide_are_both_named(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid(text=ABLATION.replace("  - {inference.law: pi}\n", ""))
    fill(record, tmp_path, fid=FID | {"RoPE": FID["RoPE, extrapolated"]})
    assert (
        "At 12×12 (1×) RoPE and RoPE, generated at 12 then bicubic, which coincide there, have the "
        "lowest FID, 10.0 [9.5, 10.5]; the baseline is among them."
    ) in build(record, tmp_path).read_text()


def test_settings_that_differ_are_in_names_and_common_ones_are_said_once(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    text = ABLATION.replace("law: pi}", "law: pi, inference.guidance: 2, inference.solver: euler}")
    record = grid(text=text)
    name = "RoPE, PI, guidance=2, solver=euler"
    fill(record, tmp_path, fid=FID | {name: FID["RoPE, PI"]})
    report = build(record, tmp_path)
    text = report.read_text()
    assert f"| {name} | **10.0 [9.5, 10.5]** | **20.0 [19.0, 21.0]** | 25.0 [" in text
    sampling = (
        "Sampling settings of all rows: steps=6, guidance_channels=all (guidance=2), samples=500, "
        "labels=balanced; where a name does not say another: "
        "solver=heun, guidance=1."
    )
    assert text.splitlines().count(sampling) == 1
    assert text.index("### Coverage") < text.index(sampling) < text.index("## Difference")
    assert f"% {sampling}" in (report.parent / "table.tex").read_text()
    common = text[text.index("Common settings of all trainings: ") :].splitlines()[0]
    for said in (
        "data.resolution=12", "theta=100 (encoding=rope)", "theta=10000 (encoding=sincos)",
        "width=64", "depth=4", "heads=2", "patch=2", "images=40000", "batch=64",
        "learning_rate=0.002", "precision=fp32",
    ):  # fmt: skip
        assert f" {said}," in common


def test_several_seeds_are_said_with_their_interval(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid((0, 1, 2))
    lift = {("RPE-2D ×2 (RoPE)", 1): 3.0, ("RPE-2D ×2 (RoPE)", 2): -3.0}
    fill(record, tmp_path, lift=lift)
    text = build(record, tmp_path).read_text()
    assert (
        "a difference of −5.0 [−12.5, +2.5] over 3 seeds: the interval includes 0, so these seeds "
        "do not tell the two apart."
    ) in text
    assert "a difference of −19.1 [−26.5, −11.6] over 3 seeds, and the interval excludes 0." in text
    assert "no spread" not in text


def test_two_builds_are_byte_identical(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid((0, 1))
    fill(record, tmp_path)
    folder = build(record, tmp_path).parent
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    build(record, tmp_path)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


def test_html_needs_nothing_else_and_takes_text_literally(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid() | {"question": "Is <script>x</script> ![better](http://example.org/a.png)?"}
    fill(record, tmp_path)
    text = (build(record, tmp_path).parent / "report.html").read_text()
    page = _Links()
    page.feed(text)
    assert len(page.found) == 5
    assert all(link.startswith("data:image/png;base64,") for link in page.found)
    assert "script" not in page.tags
    assert page.tags.count("table") == 12
    assert "url(" not in text


def test_nothing_is_trained_yet(grid: Grid, tmp_path: Path) -> None:
    report = build(grid(), tmp_path)
    text = report.read_text()
    assert "No evaluation is finished yet" in text
    assert text.count("not yet trained") == 3
    assert {file.name for file in report.parent.iterdir()} == {
        "report.md", "report.html", "headline.txt", "table.csv", "table.tex"
    }  # fmt: skip
    assert (report.parent / "table.csv").read_text().startswith("cell_id,method,")


def test_half_a_sweep_tells_what_failed_and_what_runs(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    rope, _, bicubic, sincos, rpe = record["cells"]
    write_training(tmp_path, rope, rope["runs"][0])
    write_result(tmp_path, bicubic, bicubic["runs"][0], bicubic["measurements"][2], 21.5)
    for cell, attempt in (
        (sincos, {"outcome": "failed", "error": "NonFiniteLossError: the loss was nan at step 7"}),
        (rpe, {"pid_started": "0"}),
    ):
        run = run_folder(tmp_path, cell["runs"][0]["run_id"])
        write_json(run.spec_file, {"format": 1})
        write_atomic(run.metrics_file, json.dumps({"images": 64, "loss": 1.0}) + '\n{"images": 1')
        facts = {"host": "elsewhere", "pid": 7, "started": time.time()}
        assert this_host() != "elsewhere"
        write_json(run.path / "attempts" / "0001.json", facts | attempt)
    text = build(record, tmp_path).read_text()
    assert "| sin-cos | 0 | failed | NonFiniteLossError: the loss was nan at step 7 |" in text
    assert "| RPE-2D ×2 (RoPE) | 0 | running | process 7 on elsewhere is at work on it |" in text
    assert "| RoPE | 0 | new | trained; 6 of 7 evaluations are missing |" in text
    assert (
        "has the lowest FID of the 1 of 5 rows measured so far, 21.5 [20.4, 22.6]; the baseline is "
        "not measured there yet"
    ) in text
    row = "| RoPE, generated at 12 then bicubic | – | – | – | – | {} | {} |"
    assert row.format("**21.5 [20.4, 22.6]**", "**64.5 [61.3, 67.7]**") in text


def test_a_column_of_two_protocols_is_not_spoken_of_as_a_comparison(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    cell = record["cells"][4]
    write_result(tmp_path, cell, cell["runs"][0], cell["measurements"][2], 5.0, samples=5000)
    text = build(record, tmp_path).read_text()
    assert "At 24×24 (2×) the rows were measured by more than one protocol and are not" in text
    assert "**5.00" not in text


def test_other_sizes_axes_and_dropped_cells(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    """Heights that differ from widths, a second axis of evaluation, no baseline, a rule."""
    text = ABLATION[: ABLATION.index("baseline:")].replace(
        "[12, 18, 24]", "[[12, 16], [16, 12], 24], inference.guidance: [1, 2]"
    )
    text = text.replace(
        "include:",
        "axes: {objective.timesteps: [logit_normal, uniform]}\n"
        "exclude: [{name: no-uniform, if: {objective.timesteps: uniform}}]\ninclude:",
    )
    record = grid(text=text)
    fid = {12: 10.0, 16: 11.0, 24: 12.0}
    from reports.naming import method_names

    fill(record, tmp_path, fid=dict.fromkeys(method_names(record["cells"]).values(), fid))
    report = build(record, tmp_path)
    text = report.read_text()
    header = text[text.index("| method") :].splitlines()[0]
    columns = [f"{size}, guidance={g}" for size in ("12×16", "16×12", "24×24 (2×)") for g in (1, 2)]
    both = [f"{column} · {metric}" for column in columns for metric in ("FID", "patch FID")]
    assert header == f"| method | {' | '.join(both)} |"
    assert f"| method | {' | '.join(columns)} |" in text
    assert "- Rule no-uniform dropped 1 cell." in text
    assert "No baseline is named among these rows." in text
    assert (report.parent / "samples-12x16-guidance-2.png").exists()


def test_samples_are_enlarged_without_smoothing(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    run = run_folder(tmp_path, record["cells"][4]["runs"][0]["run_id"])
    eval_id = record["cells"][4]["measurements"][2]["eval_id"]
    original = Image.open(run.samples_file(eval_id)).convert("RGB")
    data = (build(record, tmp_path).parent / "samples-24x24.png").read_bytes()
    picture = Image.open(BytesIO(data))
    enlarged = original.resize((original.width * 2, original.height * 2), Image.Resampling.NEAREST)
    # the fifth of two a shelf: on the left of the third
    places = [
        (18, top)
        for top in range(picture.height - enlarged.height)
        if picture.crop((18, top, 18 + enlarged.width, top + enlarged.height)).tobytes()
        == enlarged.tobytes()
    ]
    assert len(places) == 1


def test_a_damaged_loss_curve_is_left_out_with_a_note(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    file = run_folder(tmp_path, record["cells"][0]["runs"][0]["run_id"]).metrics_file
    file.write_bytes(b"7\n" + file.read_bytes())
    report = build(record, tmp_path)
    left_out = re.findall("Left out: .*", report.read_text())
    assert left_out == [f"Left out: RoPE, seed 0: {file}: a line is damaged."]
    assert (report.parent / "loss.png").exists()


def test_a_damaged_result_is_named(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    cell = record["cells"][0]
    run = run_folder(tmp_path, cell["runs"][0]["run_id"])
    file = run.result_file(cell["measurements"][0]["eval_id"])
    file.write_text("{")
    with pytest.raises(UserError, match=re.escape(str(file))):
        build(record, tmp_path)


def test_command(
    grid: Grid, fill: Fill, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(grid(), tmp_path / "out")
    file, out = str(tmp_path / "small.yaml"), str(tmp_path / "out")
    assert main([file, "--outputs", out]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "FID (fashion-cnn) at 24×24 (2×), 1 seed: best is RPE-2D ×2 (RoPE) 20.9 [19.9, 22.0]"
    )
    assert said[3].startswith("patch FID (fashion-cnn) at 24×24 (2×): lowest is RPE-2D ×2 (RoPE) ")
    assert said[-1] == str(tmp_path / "out" / "reports" / "small" / "report.md")
    assert main([file, "train.images=80000", "--outputs", out]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "no evaluation is finished yet"
    write_json(tmp_path / "out" / "ablations" / "small.json", {"seeds": [0, 1]})
    assert main([file, "--outputs", out]) == 0  # the seeds of the last sweep
    report = tmp_path / "out" / "reports" / "small" / "report.md"
    assert "seeds 0, 1.\n" in report.read_text()
    assert main([file, "--outputs", out, "--seeds", "1"]) == 0
    assert "seeds 0.\n" in report.read_text()


def test_outputs_that_cannot_be_written_are_a_plain_line(
    grid: Grid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "reports").write_text("in the way")
    assert main([str(tmp_path / "small.yaml"), "--outputs", str(tmp_path / "out")]) == 1
    heard = capsys.readouterr()
    assert heard.out == ""
    assert re.fullmatch(r"no report: .*/out/reports.*: .+\n", heard.err)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{folder}/smal.yaml"], "smal.yaml"),
        (["{folder}/small.yaml", "train.image=3"], "did you mean 'train.images'?"),
        (["{folder}/small.yaml", "--base", "nothing.yaml"], "--base nothing.yaml"),
        (["{folder}/small.yaml", "--seeds", "0"], "--seeds 0"),
        (["{folder}/small.yaml", "--outputs", "{folder}/outptus"], "there is no such folder"),
    ],
)
def test_mistakes_exit_with_2_and_a_message(
    grid: Grid,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    grid()
    assert main([one.format(folder=tmp_path) for one in arguments]) == 2
    heard = capsys.readouterr()
    assert told in heard.err
    assert heard.out == ""


def test_reports_import_no_torch() -> None:
    program = (
        "import sys, pkgutil, importlib, reports\n"
        "for one in pkgutil.iter_modules(reports.__path__):\n"
        "    importlib.import_module('reports.' + one.name)\n"
        "    early = {'pandas', 'seaborn', 'matplotlib'} & set(sys.modules)\n"
        "    assert one.name != '__main__' or not early, early\n"
        "banned = {'torch', 'torchvision', 'ray', 'mlflow', 'deepspeed'} & set(sys.modules)\n"
        "assert not banned, banned\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_a_picture_of_samples_that_is_not_there_is_an_empty_frame(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path, samples=False)
    assert "## Samples" not in build(record, tmp_path).read_text()
    cell = record["cells"][4]
    run = run_folder(tmp_path, cell["runs"][0]["run_id"])
    write_samples(run.samples_file(cell["measurements"][1]["eval_id"]), (18, 18))
    text = build(record, tmp_path).read_text()
    assert re.findall(r"\(samples-.*\)", text) == ["(samples-18x18.png)"]


def test_marks_are_told_and_the_text_follows_them(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    reason = "20 samples for 64 dimensions: the covariance needs at least 65"
    for cell, value in zip(record["cells"], (40.0, 30.0, 21.5, 123.4, 20.94), strict=True):
        few = {"marks": {"patch-fid": reason} | ({"fid": reason} if value < 21 else {})}
        write_result(tmp_path, cell, cell["runs"][0], cell["measurements"][2], value, **few)
    text = build(record, tmp_path).read_text()
    assert "At 24×24 (2×) RoPE, generated at 12 then bicubic has the lowest FID, 21.5" in text
    assert "at 24×24 (2×) every patch FID is marked ‡, so none is called the lowest." in text
    assert f"‡ FID and patch FID: {reason}." in text
    assert "A figure with ‡ is never called the best; why is below its table." in text


def test_a_report_of_several_extractors_says_whose_fid_it_speaks_of(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    for file in tmp_path.glob("runs/*/eval/*.json"):
        result = json.loads(file.read_text())
        more = {"fid": 7.0, "patch-fid": 8.0, "fid.dinov2": 70.0, "patch-fid.dinov2": 80.0}
        result["metrics"] |= more
        result["marks"] = dict.fromkeys(("fid", "patch-fid"), "500 samples for 2048 dimensions")
        file.write_text(json.dumps(result))
    report = build(record, tmp_path)
    text = report.read_text()
    titles = re.findall("^### (FID.*|FD.*|patch.*) ↓", text, re.MULTILINE)
    assert titles == [
        "FID and patch FID", "FD-DINOv2 and patch FD-DINOv2", "FID and patch FID (fashion-cnn)"
    ]  # fmt: skip
    assert "have the lowest FD-DINOv2, 70.0" in text
    assert "FD-DINOv2 and patch FD-DINOv2: no Inception FID" in text
    assert {"fid.png", "fid-dinov2.png", "fid-fashion-cnn.png"} <= {
        file.name for file in report.parent.iterdir()
    }


def test_samples_are_said_to_have_the_labels_that_they_have(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    text = ABLATION.replace("seeds:", "set: {evaluate.labels: random}\nseeds:")
    record = grid(text=text)
    fill(record, tmp_path)
    text = build(record, tmp_path).read_text()
    assert "The same noise and labels for every method, the first images as they came" in text
    cell = record["cells"][0]
    other = {"labels": "balanced"}
    write_result(tmp_path, cell, cell["runs"][0], cell["measurements"][2], 5.0, **other)
    text = build(record, tmp_path).read_text()
    assert "The same noise for every method, the first images as they came" in text


def test_a_difference_that_samples_do_not_tell_is_said_to_be_none(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    near = dict(FID) | {"RPE-2D ×2 (RoPE)": {12: 12.0, 18: 19.5, 24: 39.5}}
    others = {12: 30.0, 18: 60.0, 24: 90.0}
    fill(record, tmp_path, fid=dict.fromkeys(FID, others) | {k: near[k] for k in list(FID)[::4]})
    assert (
        "a difference of −0.5 [−2.2, +1.2] over samples: the interval includes 0, so these samples "
        "do not tell the two apart."
    ) in build(record, tmp_path).read_text()


def test_a_metric_that_no_row_has_is_named_with_the_reason(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    kinds = ("precision", "recall")
    why = {"marks": dict.fromkeys(kinds, "the generated features hold 3 samples")}
    for cell in record["cells"]:
        for measurement in cell["measurements"]:
            write_result(tmp_path, cell, cell["runs"][0], measurement, 5.0, without=kinds, **why)
    text = build(record, tmp_path).read_text()
    assert "### Precision" not in text
    assert (
        "‡ No Precision and Recall (fashion-cnn): the generated features hold 3 samples."
    ) in text
