import os
from pathlib import Path

import pytest

from i2sb_rt.cli.jobs import plan_jobs, protect
from i2sb_rt.errors import UsageError


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def pairs(inputs: list[str], output: str, overwrite: bool = False) -> list[tuple[str, str]]:
    return [(job.source_name, job.target_name) for job in plan_jobs(inputs, output, overwrite)]


def test_a_file_to_a_file_a_folder_and_the_standard_streams() -> None:
    touch("a.jpg")
    assert pairs(["a.jpg"], "out.webp") == [("a.jpg", "out.webp")]
    assert pairs(["a.jpg"], "out") == [("a.jpg", "out/a.png")]
    assert pairs(["a.jpg"], "out.d/") == [("a.jpg", "out.d/a.png")]
    assert pairs(["a.jpg"], "-") == [("a.jpg", "-")]
    assert pairs(["-"], "-") == [("-", "-")]
    assert pairs(["-"], "out.tif") == [("-", "out.tif")]
    touch("dotted.v2/x")
    assert pairs(["a.jpg"], "dotted.v2") == [("a.jpg", "dotted.v2/a.png")]


def test_a_folder_is_walked_and_its_tree_kept() -> None:
    touch("in/b.JPG", "in/sub/deep/a.webp", "in/sub/note.txt", "in/sub/deep/é ü.tiff", "in/c.gif")
    assert pairs(["in"], "out") == [
        ("in/b.JPG", "out/b.png"),
        ("in/sub/deep/a.webp", "out/sub/deep/a.png"),
        ("in/sub/deep/é ü.tiff", "out/sub/deep/é ü.png"),
    ]


def test_names_that_would_meet_keep_their_endings() -> None:
    touch("in/a.jpg", "in/a.webp", "in/b.jpg", "in/sub/a.jpg")
    assert pairs(["in"], "out") == [
        ("in/a.jpg", "out/a.jpg.png"),
        ("in/a.webp", "out/a.webp.png"),
        ("in/b.jpg", "out/b.png"),
        ("in/sub/a.jpg", "out/sub/a.png"),
    ]


def test_names_that_still_meet_are_refused() -> None:
    touch("one/a.jpg", "two/a.jpg", "in/a.jpg", "in/a.webp", "in/a.jpg.tif")
    for inputs in (["one", "two"], ["in"]):
        with pytest.raises(UsageError, match=r"would both be written to out/a\.jpg\.png"):
            plan_jobs(inputs, "out")


def test_globs_and_repeats() -> None:
    touch("x/a.jpg", "x/b.png", "x/y/c.jpg", "odd[1].jpg")
    assert pairs(["x/*.jpg", "x/a.jpg", "./x/../x/a.jpg"], "out") == [("x/a.jpg", "out/a.png")]
    assert pairs(["**/*.jpg"], "out")[0] == ("odd[1].jpg", "out/odd[1].png")
    assert pairs(["odd[1].jpg"], "out") == [("odd[1].jpg", "out/odd[1].png")]


def test_patterns_follow_no_links_in_circles() -> None:
    touch("x/a.jpg", "x/.b.jpg", "x/y/c.jpg", "x/.z/d.jpg")
    for name in ("x/one", "x/two", "x/y/three"):
        Path(name).symlink_to(Path("x").absolute())
    wanted = [("x/a.jpg", "out/a.png"), ("x/y/c.jpg", "out/c.png")]
    for pattern in ("x/**/*.jpg", "**/*.jpg", "**"):
        assert pairs([pattern], "out") == wanted
    here = Path().absolute()
    assert pairs([f"{here}/**/[a-c].jpg"], "out") == [(f"{here}/{source}", target) for source, target in wanted]
    assert pairs(["x/y/../**/c.jpg"], "out") == [("x/y/../y/c.jpg", "out/c.png")]
    assert pairs(["x/**.jpg"], "out") == [("x/a.jpg", "out/a.png")]
    assert pairs(["x/.*.jpg"], "out") == [("x/.b.jpg", "out/.b.png")]
    assert pairs(["x/one/*.jpg"], "out") == [("x/one/a.jpg", "out/a.png")]


def test_a_folder_that_cannot_be_listed_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("in/a.jpg", "in/closed/b.jpg", "in/open/c.jpg")
    scan = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert pairs(["in"], "out") == [
        ("in/a.jpg", "out/a.png"),
        ("in/open/c.jpg", "out/open/c.png"),
        ("in/closed", "out/closed.png"),
    ]
    assert pairs(["in/closed"], "out") == [("in/closed", "out/closed.png")]


def test_names_that_no_file_can_have() -> None:
    touch("a.jpg")
    for name in ("x" * 300 + ".png", "x" * 5000):
        assert pairs([name], "out.png") == [(name, "out.png")]
        assert not plan_jobs(["a.jpg"], f"{name}/b.png")[0].has_output
    for inputs, output in ((["a\0.jpg"], "out.png"), (["a.jpg"], "o\0.png")):
        with pytest.raises(UsageError, match="zero byte"):
            plan_jobs(inputs, output)


def test_a_missing_file_is_a_job_that_will_fail() -> None:
    assert pairs(["gone.jpg"], "out.png") == [("gone.jpg", "out.png")]


def test_outputs_of_an_earlier_run_are_not_inputs() -> None:
    touch("in/a.jpg", "in/out/a.png")
    assert pairs(["in"], "in/out") == [("in/a.jpg", "in/out/a.png")]


def test_an_input_is_not_replaced_unless_asked() -> None:
    touch("in/a.png", "in/b.jpg", "c.png")
    for inputs, output in ((["in"], "in"), (["c.png"], "c.png"), (["c.png"], "."), (["in/b.jpg", "c.png"], ".")):
        with pytest.raises(UsageError, match="--overwrite"):
            plan_jobs(inputs, output)
        plan_jobs(inputs, output, overwrite=True)
    Path("link.png").symlink_to("c.png")
    with pytest.raises(UsageError, match="--overwrite"):
        plan_jobs(["link.png"], "c.png")


@pytest.mark.parametrize(
    ("inputs", "output", "words"),
    [
        ([], "out.png", "no input"),
        (["empty"], "out", "no images in empty"),
        (["empty"], "out.png", "no images in empty"),
        (["a.jpg", "b.jpg"], "out.png", "name a folder"),
        (["a.jpg", "b.jpg"], "-", "name a folder"),
        (["a.jpg"], "out.gif", "one of .png"),
        (["-"], "out", "one of .png"),
        (["-"], "out/", "name the file"),
        (["-"], "empty", "name the file"),
        (["-", "a.jpg"], "out", "only input"),
        (["none*.jpg"], "out", "no images"),
    ],
)
def test_refuses_what_cannot_be_meant(inputs: list[str], output: str, words: str) -> None:
    touch("a.jpg", "b.jpg", "empty/note.txt")
    with pytest.raises(UsageError, match=words):
        plan_jobs(inputs, output)


def test_side_files_do_not_replace_images() -> None:
    touch("a.jpg")
    jobs = plan_jobs(["a.jpg"], "out.png")
    for name in ("a.jpg", "./out.png"):
        with pytest.raises(UsageError, match=r"--compare .* would replace an input or an output"):
            protect({"--compare": Path(name)}, jobs)
    protect({"--compare": Path("sheet.png"), "--profile": Path("trace.json")}, jobs)
    with pytest.raises(UsageError, match=r"--profile sheet\.png would replace what --compare writes"):
        protect({"--compare": Path("./sheet.png"), "--profile": Path("sheet.png")}, jobs)
