"""An engine that runs whole plans on a device: requests come in, the loop runs them in batches."""

from __future__ import annotations

import traceback
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from i2sb_rt import _core
from i2sb_rt.engines.gathering import Gathering
from i2sb_rt.engines.loop import Loop
from i2sb_rt.errors import OutOfMemoryError

F32 = NDArray[np.float32]


class DeviceEngine:
    """A loop and what it runs: cuda or tensorrt by name, in a precision.

    batch: images of one size, or tiles of one image, that are run together; with fewer the rest is empty, so that an
    image's bytes do not depend on its company. Images come from as many threads. None is one image, and the model's own
    batch of tiles.
    """

    def __init__(self, name: str, precision: str, loop: Loop, batch: int | None) -> None:
        self.name, self.precision, self._loop = name, precision, loop
        self._gathering = Gathering(self._run, batch or 1)
        self.core = _core.Engine.whole(self._sample)

    def _sample(self, x: F32, rows: F32, **options: Any) -> tuple[F32, F32 | None]:
        """Run a plan, as the core asks for it; together with others of its kind that wait."""
        alone = bool(len(x) > 1 or options["tile"] or options["trajectory"] or options["draws"] is not None)
        sides = [None if options[name] is None else options[name].shape for name in ("cond", "mask")]
        same = (rows.tobytes(), options["clip"], options["known"], options["overlap"], options["network_batch"])
        kind = object() if alone else (x.shape, *sides, *same)
        return self._gathering(kind, {"x": x, "rows": rows, **options}, alone)

    def _run(self, requests: list[dict[str, Any]]) -> list[tuple[F32, F32 | None] | BaseException]:
        """Run requests of one kind as one batch; one that is cancelled does not stop the others."""
        options = {**requests[0], "seeds": [seed for request in requests for seed in request["seeds"]]}
        if len(requests) > 1:
            for name in ("x", "x1", "cond", "mask"):
                if options[name] is not None:
                    options[name] = np.concatenate([request[name] for request in requests])
        stopped: set[int] = set()

        def on_row(row: int) -> bool:
            for index, request in enumerate(requests):
                if index not in stopped and request["on_row"] is not None and request["on_row"](row):
                    stopped.add(index)
            return len(stopped) == len(requests)

        try:
            watched = any(request["on_row"] is not None for request in requests)
            out, path = self._loop.run(**{**options, "on_row": on_row if watched else None})
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)  # they hold what was computed so far
            self._loop.forget()
            raise OutOfMemoryError(f"the GPU has not enough memory: {error}") from error
        if len(requests) == 1:
            return [(out, path)]
        cancelled = _core.CancelledError("stopped by the caller")
        return [cancelled if index in stopped else (out[index : index + 1], None) for index in range(len(requests))]
