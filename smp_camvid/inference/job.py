"""A job of `predict`: many inputs through one segmenter into files, in order, and resumable.

Threads decode ahead of the network and encode behind it; what waits in between is bounded, so
memory does not grow with the number of inputs.  The pictures of a batch are chosen by their places
in the list and not by what is left to do: a job that was killed and goes on computes the same
batches, and so the same bits, as one that was not.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass

from smp_camvid.data.pictures import Picture
from smp_camvid.errors import DeviceError, RunError, SmpCamvidError
from smp_camvid.inference.files import save_prediction
from smp_camvid.inference.inputs import Input
from smp_camvid.inference.ledger import Ledger, Task
from smp_camvid.inference.manifest import Record
from smp_camvid.inference.prediction import Prediction
from smp_camvid.inference.predictor import Segmenter
from smp_camvid.inference.video import segment_video

OnFrame = Callable[[int, int | None], None]
GLANCED = 1024
"""So many inputs are looked up ahead of one that is computed."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    input: Input
    record: Record | None = None
    """As in the manifest; None for an input that failed."""
    error: SmpCamvidError | None = None
    skipped: bool = False
    """Done by an earlier job."""


@dataclass
class Job:
    """Everything that is the same for all inputs."""

    segmenter: Segmenter
    ledger: Ledger
    batch_size: int = 1
    threads: int = 2
    on_frame: OnFrame | None = None
    """Called after each frame of a video with the number done and, if known, of all."""

    def run(self, inputs: Iterable[Input]) -> Generator[Outcome]:
        """The outcomes, in order.  Closing it, or Ctrl-C, keeps what is written by then.

        Raises RunError when files cannot be written: then every further input would fail too.
        """
        ended: deque[Outcome | Future[Outcome]] = deque()
        readers, writers = (ThreadPoolExecutor(self.threads) for _ in range(2))
        try:
            for chunk, reads in self._read_ahead(self._chunks(inputs), readers):
                for outcome in self._compute(chunk, reads, writers):
                    ended.append(outcome)
                    while ended and (len(ended) > 2 * self.threads or _is_done(ended[0])):
                        yield self._settle(ended.popleft())
            while ended:
                yield self._settle(ended.popleft())
        finally:
            readers.shutdown(wait=False, cancel_futures=True)
            writers.shutdown(cancel_futures=True)
            for outcome in ended:
                with contextlib.suppress(CancelledError, RunError):
                    self._settle(outcome)

    # --- what there is to do ----------------------------------------------------------------------

    def _chunks(self, inputs: Iterable[Input]) -> Iterator[list[Task]]:
        """Pictures that go through the network together; a video stands alone."""
        chunk: list[Task] = []
        for one in inputs:
            task = self.ledger.look_up(one)
            if chunk and (task.video or len(chunk) == self.batch_size):
                yield chunk
                chunk = []
            chunk.append(task)
            if task.video:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    # --- from file to file ------------------------------------------------------------------------

    def _read_ahead(
        self, chunks: Iterable[list[Task]], readers: ThreadPoolExecutor
    ) -> Iterator[tuple[list[Task], list[Future[Picture]]]]:
        """Chunks and the pictures of those that are computed, which are decoded meanwhile."""
        waiting: deque[tuple[list[Task], list[Future[Picture]]]] = deque()
        held = looked_up = 0
        for chunk in chunks:
            computed = not chunk[0].video and any(task.waits for task in chunk)
            # pictures that are done already are in it as well: they were in that batch
            tasks = [task for task in chunk if computed and task.error is None]
            reads = [readers.submit(task.read) for task in tasks]
            waiting.append((chunk, reads))
            held, looked_up = held + len(reads), looked_up + len(chunk)
            while waiting and (held > self.batch_size + self.threads or looked_up > GLANCED):
                first = waiting.popleft()
                held, looked_up = held - len(first[1]), looked_up - len(first[0])
                yield first
        yield from waiting

    def _compute(
        self, chunk: list[Task], reads: list[Future[Picture]], writers: ThreadPoolExecutor
    ) -> Iterator[Outcome | Future[Outcome]]:
        if chunk[0].video:
            yield self._segment_video(chunk[0]) if chunk[0].waits else _ended(chunk[0])
            return
        pictures: dict[int, Picture] = {}
        running = [number for number, task in enumerate(chunk) if reads and task.error is None]
        for number, read in zip(running, reads, strict=True):
            try:
                pictures[number] = read.result()
            except SmpCamvidError as error:
                chunk[number].fail(error)
        predictions = dict(zip(pictures, self._predict(list(pictures.values())), strict=True))
        for number, task in enumerate(chunk):
            made = predictions.get(number)
            if isinstance(made, SmpCamvidError):
                task.fail(type(made)(f"{task.input.shown}: {made.message}", made.hint))
            if task.waits and isinstance(made, Prediction):
                self.ledger.announce(task.input)
                yield writers.submit(self._write, task, made)
            else:
                yield _ended(task)

    def _predict(self, pictures: list[Picture]) -> list[Prediction | SmpCamvidError]:
        """Together; each by itself when that fails, so that one picture cannot spoil others."""
        if not pictures:
            return []
        try:
            return list(self.segmenter.predict_many(pictures, batch_size=len(pictures)))
        except (SmpCamvidError, MemoryError) as error:
            if len(pictures) > 1:
                return [result for one in pictures for result in self._predict([one])]
            if isinstance(error, SmpCamvidError):
                return [error]
            return [DeviceError("It does not fit into memory.", "Try --tile 1024x1024.")]

    def _write(self, task: Task, prediction: Prediction) -> Outcome:
        one, ledger = task.input, self.ledger
        folder = ledger.out / one.below
        try:
            files = save_prediction(prediction, folder, one.stem, ledger.kinds, ledger.unfinished)
        except OSError as error:
            raise self._cannot_write(error) from error
        record = ledger.describe(task, files, prediction.shares(), task.notes)
        return Outcome(one, record)

    def _segment_video(self, task: Task) -> Outcome:
        one, ledger = task.input, self.ledger
        folder, unfinished = ledger.out / one.below, ledger.unfinished / "video"
        try:
            unfinished.mkdir(exist_ok=True)
            done = segment_video(
                self.segmenter, task.path, unfinished, one.stem, ledger.kinds,
                batch_size=self.batch_size, on_frame=self.on_frame,
            )  # fmt: skip
            folder.mkdir(parents=True, exist_ok=True)
            ledger.announce(one)
            files = {kind: path.replace(folder / path.name) for kind, path in done.files.items()}
        except RunError:
            raise
        except SmpCamvidError as error:
            said = type(error)(error.message.replace(str(task.path), one.shown), error.hint)
            return Outcome(one, error=said)
        except OSError as error:
            raise self._cannot_write(error) from error
        record = ledger.describe(task, files, done.shares, done.notes)
        more = {"frames": done.frames, "fps": str(done.fps), "damaged": done.damaged}
        return Outcome(one, record | more)

    def _settle(self, ended: Outcome | Future[Outcome]) -> Outcome:
        """Waits for the files, then records them: what is in the manifest is there."""
        outcome = ended.result() if isinstance(ended, Future) else ended
        if outcome.record is not None and not outcome.skipped:
            self.ledger.add(outcome.input, outcome.record)
        return outcome

    def _cannot_write(self, error: OSError) -> RunError:
        # of a renaming the second is the place that was meant
        place = error.filename2 or error.filename or self.ledger.out
        return RunError(
            f"{place} cannot be written: {error.strerror or error}.",
            "What is done stays; after that is mended the same command goes on.",
        )


def _is_done(ended: Outcome | Future[Outcome]) -> bool:
    return ended.done() if isinstance(ended, Future) else True


def _ended(task: Task) -> Outcome:
    return Outcome(task.input, task.record, task.error, skipped=task.record is not None)
