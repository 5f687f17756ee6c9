"""Work on many files at once: decoding and hashing leave Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

OnProgress = Callable[[int, int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")


def threaded(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    on_progress: OnProgress | None = None,
) -> Iterator[Result]:
    """`map` over all cores, in order; `on_progress(done, total)` after each."""
    pool = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 1)))
    try:
        for done, result in enumerate(pool.map(work, items), start=1):
            yield result
            if on_progress is not None:
                on_progress(done, len(items))
    finally:
        # After an error or Ctrl-C nobody wants the rest.
        pool.shutdown(cancel_futures=True)
