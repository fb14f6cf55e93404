import re
from pathlib import Path

import pytest

from i2sb_rt.cli import report_failure
from i2sb_rt.errors import I2SBError, UsageError


def test_the_page_tells_every_error_as_it_is() -> None:
    def kinds(kind: type[I2SBError]) -> set[type[I2SBError]]:
        return {kind}.union(*(kinds(sub) for sub in kind.__subclasses__()))

    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| \S", page, flags=re.MULTILINE)
    ours = {kind for kind in kinds(I2SBError) if kind.__module__ == "i2sb_rt.errors"}
    assert sorted(told) == sorted((kind.code, kind.__name__, str(int(kind.exit_code))) for kind in ours)
    assert len({kind.code for kind in ours}) == len(ours) == 13


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (MemoryError(), 6, "i2sb-rt: there is not enough memory\n"),
        (KeyError("x"), 1, "i2sb-rt: internal error: KeyError: 'x' (I2SB_RT_DEBUG=1 shows where)\n"),
        (UsageError("this does not fit"), 2, "i2sb-rt: this does not fit\n"),
    ],
)
def test_what_ends_a_command_is_a_sentence_and_a_code(
    error: Exception, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_failure(error) == code
    assert capsys.readouterr().err == sentence
