"""Requests that meet at one device: who is run with whom, and who hears of what."""

import signal
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from busy_device import held
from hypothesis import given, settings
from hypothesis import strategies as st

from i2sb_rt.engines.gathering import FLIGHTS, Gathering


@settings(max_examples=25)
@given(kinds=st.lists(st.sampled_from("abc"), min_size=1, max_size=24), most=st.integers(1, 5))
def test_everyone_gets_their_own_result(kinds: list[str], most: int) -> None:
    batches: list[list[tuple[str, int]]] = []
    busy = threading.Semaphore(FLIGHTS)

    def run(requests: list[tuple[str, int]]) -> list[int | BaseException]:
        assert busy.acquire(blocking=False), "more batches at once than there may be"
        batches.append(requests)
        time.sleep(0.0005)
        busy.release()
        return [10 * number for _, number in requests]

    gathering = Gathering(run, most)
    with ThreadPoolExecutor(len(kinds)) as pool:
        results = list(pool.map(lambda pair: gathering(pair[0], pair), [(k, n) for n, k in enumerate(kinds)]))
    assert results == [10 * number for number in range(len(kinds))]
    assert sorted(number for batch in batches for _, number in batch) == list(range(len(kinds)))
    for batch in batches:
        assert len({kind for kind, _ in batch}) == 1
        assert len(batch) <= most


def echo(batches: list[list[int]]) -> Callable[[list[int]], list[int | BaseException]]:
    """A device that notes its batches and gives back what it is asked."""

    def run(requests: list[int]) -> list[int | BaseException]:
        batches.append(requests)
        return list(requests)

    return run


def wait_in_line(gathering: Gathering[int, int], kind: Hashable, count: int, pool: ThreadPoolExecutor) -> list[object]:
    """Let `count` requests stand in line while the device is held by somebody else."""
    futures: list[object] = [pool.submit(gathering, kind, number) for number in range(count)]
    while len(gathering._line) < count:
        time.sleep(0.001)
    return futures


def test_those_that_wait_are_run_together_and_first_come_first() -> None:
    batches: list[list[int]] = []
    gathering = Gathering(echo(batches), 3)
    with ThreadPoolExecutor(8) as pool, held(gathering):
        wait_in_line(gathering, "a", 7, pool)
    assert sorted(map(len, batches), reverse=True) == [3, 3, 1]
    assert sorted(number for batch in batches for number in batch) == list(range(7))


def test_an_error_is_told_to_those_it_concerns() -> None:
    def run(requests: list[int]) -> list[int | BaseException]:
        if len(requests) > 2:
            raise MemoryError("too many")
        return [KeyError("mine") if request == 1 else request for request in requests]

    gathering = Gathering(run, 4)
    assert gathering("alone", 5) == 5
    with pytest.raises(KeyError, match="mine"):
        gathering("alone", 1)
    with ThreadPoolExecutor(8) as pool:
        with held(gathering):
            futures = wait_in_line(gathering, "a", 3, pool)
        for future in futures:
            with pytest.raises(MemoryError, match="too many"):
                future.result()  # type: ignore[attr-defined]
        with held(gathering):
            good, bad = wait_in_line(gathering, "a", 2, pool)
        assert good.result() == 0  # type: ignore[attr-defined]
        with pytest.raises(KeyError, match="mine"):
            bad.result()  # type: ignore[attr-defined]


@pytest.mark.parametrize("full", [True, False])
def test_a_second_batch_flies_beside_the_first_only_if_it_is_full(full: bool) -> None:
    """One that is not would be run half empty, and those who come later alone."""
    batches: list[list[int]] = []
    gathering, count = Gathering(echo(batches), 3), 3 if full else 2
    with ThreadPoolExecutor(3) as pool:
        with held(gathering, FLIGHTS - 1):
            futures = [pool.submit(gathering, "a", number) for number in range(count)]
            if full:
                assert sorted(future.result(timeout=20) for future in futures) == [0, 1, 2]
            else:
                time.sleep(0.05)
                assert not batches
        assert sorted(future.result() for future in futures) == list(range(count))
    assert len(batches) == 1


def test_one_that_can_have_no_company_waits_for_none() -> None:
    gathering: Gathering[int, int] = Gathering(echo([]), 3)
    with held(gathering, FLIGHTS - 1):
        assert gathering(object(), 1, alone=True) == 1


def test_kinds_take_turns() -> None:
    """A kind that always has a full batch in line does not keep others from the device."""
    ran: list[str] = []

    def run(requests: list[str]) -> list[int | BaseException]:
        ran.append(requests[0])
        return [0] * len(requests)

    gathering: Gathering[str, int] = Gathering(run, 1)
    with ThreadPoolExecutor(9) as pool, held(gathering):
        for kind in "aabaaa":
            before = len(gathering._line)
            pool.submit(gathering, kind, kind)
            while len(gathering._line) == before:
                time.sleep(0.001)
    assert ran.index("b") <= 3


class Served(Gathering[int, int]):
    """One in which the main thread only waits, so that others run its requests."""

    def _may_fly(self, mine: Any) -> bool:
        return threading.current_thread() is not threading.main_thread() and super()._may_fly(mine)


def interrupt_main() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_ctrl_c_takes_back_a_request_that_waits() -> None:
    batches: list[list[int]] = []
    gathering = Gathering(echo(batches), 3)

    def interrupt() -> None:
        while not gathering._line:
            time.sleep(0.001)
        interrupt_main()

    with held(gathering):
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            gathering("a", 1)
        thread.join()
        assert not gathering._line
    assert gathering("a", 2) == 2
    assert batches == [[2]]


def test_ctrl_c_waits_for_who_runs_its_request() -> None:
    """What a request holds belongs to its caller: it may not go while somebody is at work on it."""
    batches: list[list[int]] = []
    finished = threading.Event()

    def run(requests: list[int]) -> list[int | BaseException]:
        batches.append(requests)
        interrupt_main()
        time.sleep(0.1)
        finished.set()
        return list(requests)

    gathering = Served(run, 2)
    with ThreadPoolExecutor(1) as pool:
        with held(gathering, FLIGHTS - 1):  # it flies as soon as both are there
            other = pool.submit(gathering, "a", 2)
            while not gathering._line:
                time.sleep(0.001)
            with pytest.raises(KeyboardInterrupt):
                gathering("a", 1)
            assert finished.is_set()
        assert other.result() == 2
    assert batches == [[2, 1]]


@pytest.mark.parametrize("served", [False, True])
def test_ctrl_c_while_a_batch_ends_leaves_no_trace(served: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(requests: list[int]) -> list[int | BaseException]:
        if not served:
            raise KeyboardInterrupt
        return list(requests)

    gathering, land, interrupts = Gathering(run, 1), Gathering._land, [True]

    def interrupted(self: Any, taken: Any) -> None:
        if interrupts:
            interrupts.pop()
            raise KeyboardInterrupt
        land(self, taken)

    monkeypatch.setattr(Gathering, "_land", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gathering("a", 1)
    assert not gathering._flying
    assert not gathering._line
    served = True
    assert gathering("a", 2) == 2


def test_ctrl_c_of_the_one_who_serves_is_not_told_to_others() -> None:
    interrupts = [False, True]

    def run(requests: list[int]) -> list[int | BaseException]:
        if 1 in requests and interrupts.pop():
            raise KeyboardInterrupt
        return list(requests)

    gathering = Gathering(run, 3)
    with ThreadPoolExecutor(3) as pool:
        with held(gathering):
            futures = wait_in_line(gathering, "a", 3, pool)
        told = [type(future.exception()) for future in futures]  # type: ignore[attr-defined]
    assert sorted(one is KeyboardInterrupt for one in told) == [False, False, True]
    assert all(future.result() == number for number, future in enumerate(futures) if told[number] is type(None))  # type: ignore[attr-defined]
