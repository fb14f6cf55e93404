import resource
import subprocess
import sys

import pytest

import i2sb_rt

HEAVY = {"torch", "openvino", "numpy", "PIL", "onnx", "safetensors"}


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after some code."""
    script = f"{code}\nimport sys\nprint('\\n'.join({{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_by("import i2sb_rt") & HEAVY


def test_the_help_loads_nothing_heavy() -> None:
    code = "from i2sb_rt.cli import main\ntry: main(['restore', '--help'])\nexcept SystemExit: pass"
    assert not loaded_by(code) & HEAVY


def test_using_it_loads_neither_torch_nor_openvino_in_python() -> None:
    code = "import i2sb_rt\nfor name in i2sb_rt.__all__:\n    if name != 'networks': getattr(i2sb_rt, name)"
    assert loaded_by(code) & HEAVY == {"numpy", "PIL"}


def test_the_public_list_is_what_there_is() -> None:
    assert {name for name in dir(i2sb_rt) if not name.startswith("_")} >= set(i2sb_rt.__all__) - {"__version__"}
    for name in i2sb_rt.__all__:
        assert getattr(i2sb_rt, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        i2sb_rt.nothing  # noqa: B018


def test_errors_are_there_without_another_import() -> None:
    loaded_by("import i2sb_rt\nassert issubclass(i2sb_rt.errors.UsageError, i2sb_rt.I2SBError)")


def test_the_help_is_quick() -> None:
    def seconds() -> float:
        """Processor time of children so far: unlike a clock, it does not run while others use the machine."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(5):
        begin = seconds()
        subprocess.run([sys.executable, "-m", "i2sb_rt.cli", "--help"], capture_output=True, check=True)
        times.append(seconds() - begin)
    assert min(times) < 0.2
