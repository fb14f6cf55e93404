"""Requests that meet at one device: who is run with whom, and who hears of what."""

import signal
import threading
import time
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from i2sb_rt.engines.gathering import Gathering


@settings(max_examples=25)
@given(kinds=st.lists(st.sampled_from("abc"), min_size=1, max_size=24), most=st.integers(1, 5))
def test_everyone_gets_their_own_result(kinds: list[str], most: int) -> None:
    batches: list[list[tuple[str, int]]] = []
    busy = threading.Lock()

    def run(requests: list[tuple[str, int]]) -> list[int | BaseException]:
        assert busy.acquire(blocking=False), "two batches at once"
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


def wait_in_line(gathering: Gathering[int, int], kind: Hashable, count: int, pool: ThreadPoolExecutor) -> list[object]:
    """Let `count` requests stand in line while the device is held by somebody else."""
    futures: list[object] = [pool.submit(gathering, kind, number) for number in range(count)]
    while len(gathering._line) < count:
        time.sleep(0.001)
    return futures


def test_those_that_wait_are_run_together_and_first_come_first() -> None:
    batches: list[list[int]] = []

    def run(requests: list[int]) -> list[int | BaseException]:
        batches.append(requests)
        return list(requests)

    gathering = Gathering(run, 3)
    with ThreadPoolExecutor(8) as pool, gathering._device:
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
        with gathering._device:
            futures = wait_in_line(gathering, "a", 3, pool)
        for future in futures:
            with pytest.raises(MemoryError, match="too many"):
                future.result()  # type: ignore[attr-defined]
        with gathering._device:
            good, bad = wait_in_line(gathering, "a", 2, pool)
        assert good.result() == 0  # type: ignore[attr-defined]
        with pytest.raises(KeyError, match="mine"):
            bad.result()  # type: ignore[attr-defined]


def test_ctrl_c_takes_back_a_request_that_waits() -> None:
    """What a request holds belongs to its caller: nobody may run it when that has gone."""
    batches: list[list[int]] = []
    ours, released = threading.Event(), threading.Event()

    def run(requests: list[int]) -> list[int | BaseException]:
        batches.append(requests)
        return list(requests)

    gathering = Gathering(run, 3)

    def hold() -> None:
        with gathering._device:
            ours.set()
            while not gathering._line:
                time.sleep(0.001)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            while gathering._line:
                time.sleep(0.001)
            released.set()

    holder = threading.Thread(target=hold)
    holder.start()
    ours.wait()
    with pytest.raises(KeyboardInterrupt):
        gathering("a", 1)
    assert released.is_set(), "it left while somebody could be at work on its request"
    holder.join()
    assert gathering("a", 2) == 2
    assert batches == [[2]]


def test_ctrl_c_of_the_one_who_serves_is_not_told_to_others() -> None:
    interrupts = [False, True]

    def run(requests: list[int]) -> list[int | BaseException]:
        if 1 in requests and interrupts.pop():
            raise KeyboardInterrupt
        return list(requests)

    gathering = Gathering(run, 3)
    with ThreadPoolExecutor(3) as pool:
        with gathering._device:
            futures = wait_in_line(gathering, "a", 3, pool)
        told = [type(future.exception()) for future in futures]  # type: ignore[attr-defined]
    assert sorted(one is KeyboardInterrupt for one in told) == [False, False, True]
    assert all(future.result() == number for number, future in enumerate(futures) if told[number] is type(None))  # type: ignore[attr-defined]
