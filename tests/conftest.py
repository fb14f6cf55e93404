"""What all tests share."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Where there is no GPU, Triton's kernels are interpreted. It asks when a function is decorated, its own ones included,
# so this must be said before anything imports it.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"
# Several processes share the cores: threads of one that wait must not take them from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The environment's own tools are found as if it was activated. Ninja is one of them; make may not be there.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ.setdefault("CMAKE_GENERATOR", "Ninja")


def pytest_xdist_auto_num_workers() -> int:
    """Run the suite in as many processes as there are cores."""
    return len(os.sched_getaffinity(0))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C is heard here and in the processes started from here, though a shell's `&` and `nohup` have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Small networks are faster on one thread, and leave the other cores to others. Torch is not imported for it."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache of compiled networks out of it."""
    patch = pytest.MonkeyPatch()
    patch.setenv("I2SB_RT_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
