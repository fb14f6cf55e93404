"""Several things at once: in order, bounded, and none lost."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from i2sb_rt.cli.report import Report
from i2sb_rt.errors import ImageBrokenError
from i2sb_rt.parallel import Room, default_jobs, in_order


@given(
    delays=st.lists(st.integers(0, 3), max_size=20),
    jobs=st.integers(1, 5),
)
def test_results_come_in_order_and_no_more_run_at_once(delays: list[int], jobs: int) -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work(item: tuple[int, int]) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(item[1] / 2000)
        with lock:
            running -= 1
        return item[0]

    assert list(in_order(work, list(enumerate(delays)), jobs)) == list(range(len(delays)))
    assert most <= jobs


@pytest.mark.parametrize("jobs", [2, 4])
def test_jobs_do_run_at_once(jobs: int) -> None:
    meeting = threading.Barrier(jobs, timeout=20)
    assert len(list(in_order(lambda _: meeting.wait(), range(jobs), jobs))) == jobs


@pytest.mark.parametrize("jobs", [1, 3])
def test_items_are_taken_as_they_are_needed_and_a_fault_ends_the_rest(jobs: int) -> None:
    taken, done = [], []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    def work(item: int) -> int:
        if item == 5:
            raise KeyError(item)
        done.append(item)
        return item

    results = in_order(work, items(), jobs)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(results)
    assert len(taken) <= 6 + 2 * jobs
    assert set(done) <= set(taken) - {5}


@pytest.mark.parametrize(
    ("images", "threads", "jobs"),
    [(1, 64, 1), (2, 1, 1), (9, 2, 2), (9, 4, 2), (9, 8, 2), (9, 16, 4), (3, 64, 3), (100, 64, 16), (0, 4, 1)],
)
def test_the_number_of_jobs_follows_images_and_threads(images: int, threads: int, jobs: int) -> None:
    assert default_jobs(images, threads) == jobs


def test_a_room_is_never_too_full_and_a_giant_waits_for_an_empty_one() -> None:
    room, lock, sizes = Room(10), threading.Lock(), [3, 4, 9, 25, 1, 10, 7, 2] * 4
    inside: list[int] = []
    faults: list[list[int]] = []

    def visit(size: int) -> None:
        with room.of(size):
            with lock:
                inside.append(size)
                if sum(inside) > 10 and len(inside) > 1:
                    faults.append(list(inside))
            time.sleep(0.001)
            with lock:
                inside.remove(size)

    threads = [threading.Thread(target=visit, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert not inside
    assert not faults
    with pytest.raises(KeyError), room.of(10):
        raise KeyError
    with room.of(10):
        pass


def test_nobody_overtakes_a_giant() -> None:
    room, entered = Room(100), []

    def visit(size: int) -> None:
        with room.of(size):
            entered.append(size)

    with room.of(60):
        threads = []
        for size in (90, 30):
            threads.append(threading.Thread(target=visit, args=(size,)))
            threads[-1].start()
            while len(room._line) < len(threads):
                time.sleep(0.001)
    for thread in threads:
        thread.join(20)
    assert entered == [90, 30]


@pytest.mark.parametrize("fault", [None, 2])
def test_what_is_at_work_hears_that_no_more_is_wanted(fault: int | None) -> None:
    stopped = threading.Event()

    def work(item: int) -> int:
        if item == fault:
            raise KeyError(item)
        return item if fault is None or item < fault else stopped.wait(20) and item

    results = in_order(work, range(4), 2, stopped.set)
    if fault is None:
        assert list(results) == [0, 1, 2, 3]
    else:
        with pytest.raises(KeyError):
            list(results)
    assert stopped.is_set()


def test_a_report_of_failures_holds_no_pictures() -> None:
    class Picture:
        pass

    held = []

    def fail() -> None:
        picture = Picture()
        held.append(weakref.ref(picture))
        try:
            raise ValueError(id(picture))
        except ValueError as error:
            raise ImageBrokenError("a.png is damaged") from error

    report = Report(2, quiet=True)
    try:
        fail()
    except ImageBrokenError as error:
        report.done({"status": "failed", "in": "a.png"}, error)
    gc.collect()
    assert held[0]() is None
    assert [str(error) for _, error in report.failures] == ["a.png is damaged"]
