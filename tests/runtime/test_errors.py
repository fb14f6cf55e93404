import re
from pathlib import Path

from i2sb_rt.errors import I2SBError


def test_the_page_tells_every_error_as_it_is() -> None:
    def kinds(kind: type[I2SBError]) -> set[type[I2SBError]]:
        return {kind}.union(*(kinds(sub) for sub in kind.__subclasses__()))

    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| \S", page, flags=re.MULTILINE)
    ours = {kind for kind in kinds(I2SBError) if kind.__module__ == "i2sb_rt.errors"}
    assert sorted(told) == sorted((kind.code, kind.__name__, str(int(kind.exit_code))) for kind in ours)
    assert len({kind.code for kind in ours}) == len(ours) == 13
