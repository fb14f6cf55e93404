"""Runs the command line as `python -m i2sb_rt`, or says where the C library and the models of the package lie.

--cmake-dir, --include-dir, --library-dir, --pkgconfig-dir and --models-dir print a folder, for the build of a C or C++
program.
"""

import sys
from pathlib import Path

_SDK = {
    "--cmake-dir": "lib/cmake/i2sb_rt",
    "--include-dir": "include",
    "--library-dir": "lib",
    "--pkgconfig-dir": "lib/pkgconfig",
}


def main(arguments: list[str]) -> int:
    """Print the folder that is the only argument, or run the command line."""
    if arguments == ["--models-dir"]:
        print(Path(__file__).parent / "models")
        return 0
    if len(arguments) == 1 and arguments[0] in _SDK:
        from i2sb_rt import _core  # an editable install leaves it, and what is installed with it, outside this folder

        print(Path(_core.__file__).parent / "sdk" / _SDK[arguments[0]])
        return 0
    from i2sb_rt import cli

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
