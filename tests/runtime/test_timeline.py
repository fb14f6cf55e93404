import json
import time

from i2sb_rt.timeline import Timeline, chrome_trace


def test_sums_the_time_under_each_name() -> None:
    timeline = Timeline()
    timeline.observe("network", 0, 2, 1, 1, 1_000_000, 3_500_000)
    timeline.observe("network", 1, 2, 1, 1, 4_000_000, 5_000_000)
    timeline.observe("step", 1, 2, 0, 0, 5_000_000, 5_000_400)
    assert timeline.milliseconds() == {"network": 3.5, "step": 0.0}


def test_a_span_is_as_long_as_its_body_also_when_that_fails() -> None:
    timeline = Timeline()
    try:
        with timeline.span("decode"):
            time.sleep(0.02)
            raise RuntimeError
    except RuntimeError:
        pass
    assert 20 <= timeline.milliseconds()["decode"] < 2000


def test_the_trace_has_a_named_track_for_each_image() -> None:
    first, second = Timeline(), Timeline()
    first.observe("network", 0, 1, 1, 1, 2_000, 5_000)
    with second.span("encode", bytes=3):
        pass
    events = json.loads(chrome_trace({"a.jpg": first, "b.jpg": second}))["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert sorted(names.values()) == ["a.jpg", "b.jpg"]
    network, encode = (event for event in events if event["ph"] == "X")
    assert (names[network["tid"]], network["name"], network["ts"], network["dur"]) == ("a.jpg", "network", 2.0, 3.0)
    assert (names[encode["tid"]], encode["name"], encode["args"]) == ("b.jpg", "encode", {"bytes": 3})
