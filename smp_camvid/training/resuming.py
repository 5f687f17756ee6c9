"""Going on with a run: what may differ, and what the user is told."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Sized
from typing import TYPE_CHECKING, Any

from smp_camvid import recipe, torchrun
from smp_camvid.errors import UsageError
from smp_camvid.recipe import Recipe, TrainConfig

if TYPE_CHECKING:
    from smp_camvid.training.checkpoint import TrainState
    from smp_camvid.training.distributed import Dist

MAY_DIFFER = frozenset(
    {"train.device", "train.workers", "train.verbose", "train.save_plots", "train.show_plots",
     "train.loggers", "train.save_dir", "train.save_every", "train.keep", "train.checkpoint_steps",
     "data.path"}
)  # fmt: skip
"""Keys that do not change what is computed, only where and how it is shown and saved."""


def check_same_run(before: str, now: Recipe) -> None:
    """Raises UsageError, with the differences, when `now` is not the recipe (TOML) of the run.

    `train.epochs` may grow: the schedule is then that of the new total.
    """
    old = Recipe.model_validate(_without_extends(before))
    if differing := differences(old, now):
        raise UsageError(
            f"A resumed run keeps its recipe; this would change it: {'; '.join(differing)}.",
            "Take it back, in the run's config.toml too, or start a new run; --weights RUN begins "
            "with the weights it has saved.",
        )


def facts_of_data(train: Iterable[Any], val: Iterable[Any] | None, protocol: str) -> dict[str, Any]:
    """What tells datasets apart wherever they lie: the protocol, and the frames by their names."""
    return {"protocol": protocol, "train": _frames(train), "val": _frames(val)}


def _frames(loader: Iterable[Any] | None) -> dict[str, Any]:
    dataset: Any = getattr(loader, "dataset", None)
    stems = "\n".join(frame.stem for frame in getattr(dataset, "frames", ()))
    count = len(dataset) if isinstance(dataset, Sized) else None  # a foreign loader's may not know
    return {"count": count, "names": hashlib.sha256(stems.encode()).hexdigest()}


def check_same_data(before: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Raises UsageError when a checkpoint's `facts_of_data` are not those of the data at hand."""
    if before is None or before == now:
        return
    found = []
    if before["protocol"] != now["protocol"]:
        found.append(f"{before['protocol']} -> {now['protocol']}")
    for split in ("train", "val"):
        was, is_ = before[split], now[split]
        if was["count"] != is_["count"]:
            found.append(f"{was['count']} -> {is_['count']} {split} frames")
        elif was != is_:
            found.append(f"other {split} frames")
    raise UsageError(
        f"A resumed run keeps its data; these are others: {', '.join(found)}.",
        "Name where its own are now with --data, or start a new run.",
    )


def differences(old: Recipe, new: Recipe) -> list[str]:
    """ "train.lr 0.001 -> 0.002" for every key that makes another run."""
    found = []
    before, after = recipe.flat_values(old), recipe.flat_values(new)
    for key in sorted({*before, *after} - MAY_DIFFER):
        was, is_ = before.get(key), after.get(key)
        more = key == "train.epochs" and new.train.epochs > old.train.epochs
        if was != is_ and not more:
            found.append(f"{key} {was} -> {is_}")
    return found


def _without_extends(text: str) -> dict[str, Any]:
    values = tomllib.loads(text)
    values.pop("extends", None)
    return values


def epochs_raised(before: str, config: TrainConfig) -> int:
    """How many epochs more than the recipe (TOML) of the checkpoint has."""
    return config.epochs - int(_without_extends(before)["train"]["epochs"])


def finished_notice(state: TrainState, config: TrainConfig) -> str:
    """That there is nothing left to train, and why; empty while there is."""
    more = f"For more epochs: --epochs N, N above {config.epochs}."
    if state.stopped:
        return (
            f"Stopped early after epoch {state.epoch} of {config.epochs}: {config.stop_metric} was "
            f"best in epoch {state.stop_epoch} (stop_after = {config.stop_after}). {more}"
        )
    if state.epoch < config.epochs:
        return ""
    return f"The run is finished: {state.epoch} epochs. {more}"


def _who_ended(group: Dist) -> str:
    """The processes of the attempt before this one that could not say why they ended."""
    silent = torchrun.silent_ranks(group.restarts - 1, group.world)
    if not silent:
        return "A process of the group"
    return f"Process {' and '.join(map(str, silent))}"


def resumed_notices(document: dict[str, Any] | None, config: TrainConfig, group: Dist) -> list[str]:
    """What a user should know about the checkpoint that a run goes on from."""
    said = []
    if group.restarts:
        said.append(f"{_who_ended(group)} ended; this is restart {group.restarts}.")
    if document is None:
        return said
    state = document["state"]
    if wrong := document["newest"]:
        said.append(f"The newest checkpoint is {wrong}; the run goes on from the one before it.")
    if finished := finished_notice(state, config):
        return [*said, finished]
    at = f"epoch {state.epoch + 1}" + (f", batch {state.batch + 1}" if state.batch else "")
    said.append(f"Going on at {at} (step {state.step}).")
    if epochs_raised(document["recipe"], config):
        said.append(
            f"{config.epochs} epochs now: the learning rate follows the schedule of the new total "
            "from here, so this is not the run that would have begun with it."
        )
    if len(document["parts"]["rng"]) != group.world:
        said.append(
            f"Processes: {group.world} instead of {len(document['parts']['rng'])}; random draws "
            "such as dropout's begin anew."
        )
    return said
