"""What a run shows of itself: the network it wraps, its first table, a few pictures."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from smp_camvid.data.classes import ClassTable
from smp_camvid.data.preprocess import resize_label
from smp_camvid.errors import UsageError
from smp_camvid.evaluation.loop import judge
from smp_camvid.models.network import Network
from smp_camvid.models.pretrained import normalization_for
from smp_camvid.recipe import NOT_OPTIONS, DataConfig, ModelConfig, Recipe, Step, TrainConfig
from smp_camvid.training.events import ModelPart, RunStarted
from smp_camvid.training.optim import describe_optimizer

if TYPE_CHECKING:
    from smp_camvid.training.trainer import Trainer

Picture = npt.NDArray[np.uint8]
PREVIEW_FRAMES = 4


def preview_frames(
    network: Network, loader: Iterable[Any]
) -> list[tuple[Picture, Picture, Picture]]:
    """(frame, truth, prediction) of a few frames spread over the loader's split, not augmented."""
    segmenter = judge(network)
    shown = []
    for image, truth in _spread(loader):
        size = (image.shape[0], image.shape[1])
        shown.append((image, resize_label(truth, size), segmenter.predict(image).mask))
    return shown


def _spread(loader: Iterable[Any]) -> list[tuple[Picture, Picture]]:
    cache = getattr(getattr(loader, "dataset", None), "cache", None)
    if cache is not None:
        step = max(1, len(cache) // PREVIEW_FRAMES)
        chosen = range(step // 2, len(cache), step)[:PREVIEW_FRAMES]
        return [(cache.image(i), cache.label(i)) for i in chosen]
    batch = _first(loader)
    frames = batch[0][:PREVIEW_FRAMES].permute(0, 2, 3, 1).to(torch.uint8).numpy()
    labels = batch[1][:PREVIEW_FRAMES].to(torch.uint8).numpy()
    return list(zip(frames, labels, strict=True))


def run_started(trainer: Trainer) -> RunStarted:
    """The first event, gathered from a Trainer that is about to start."""
    cfg, network = trainer.config, trainer.network
    named = list(network.model.named_parameters())
    return RunStarted(
        name=trainer.run_dir.name,
        run_dir=trainer.run_dir,
        device=str(trainer.arithmetic),
        protocol=str(trainer.keeper.metadata["protocol"]),
        classes=network.table,
        epochs=cfg.epochs,
        first_epoch=trainer.state.epoch + 1,
        steps_per_epoch=trainer.steps_per_epoch,
        batch_size=cfg.frames_per_batch * cfg.accumulate,
        train_frames=frames_of(trainer.train_loader),
        val_frames=frames_of(trainer.val_loader),
        parameters=network.num_parameters,
        architecture=architecture(network, trainer.keeper.recipe.data.size),
        optimizer=describe_optimizer(trainer.optimizer, cfg),
        parameter_sizes=tuple((name, tuple(p.shape), p.numel()) for name, p in named),
        processes=trainer.group.world,
    )


def frames_of(loader: Iterable[Any] | None) -> int:
    """Frames behind a loader, 0 when it does not know."""
    dataset: Any = getattr(loader, "dataset", None)
    return len(dataset) if hasattr(dataset, "__len__") else 0


def architecture(network: Network, size: tuple[int, int]) -> tuple[ModelPart, ...]:
    """The model's parts below encoder and decoder, with their output for one frame of `size`."""
    parts = dict(_parts(network.model))
    shapes = output_shapes(network, parts, size)
    return tuple(
        ModelPart(
            name,
            type(part).__name__,
            sum(p.numel() for p in part.parameters()),
            shapes.get(name, ""),
        )
        for name, part in parts.items()
        if shapes.get(name) or any(True for _ in part.parameters())
    )


def _parts(module: nn.Module, name: str = "", depth: int = 2) -> Iterator[tuple[str, nn.Module]]:
    """Named modules two levels down; lists of modules do not count as a level."""
    listed = isinstance(module, (nn.ModuleList, nn.ModuleDict))
    children = list(module.named_children())
    if (depth == 0 and not listed) or not children:
        yield name, module
        return
    for child_name, child in children:
        yield from _parts(child, f"{name}.{child_name}".strip("."), depth - (not listed))


def output_shapes(
    network: Network, parts: Mapping[str, nn.Module], size: tuple[int, int]
) -> dict[str, str]:
    """ "64x568x568" by part, from a forward pass without numbers (torch's meta device)."""
    shapes: dict[str, str] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                shapes[name] = "x".join(str(n) for n in output.shape[1:])

        return hook

    twin = copy.deepcopy(network).to("meta").eval()
    modules = dict(twin.model.named_modules())
    for name in parts:
        modules[name].register_forward_hook(note(name))
    with (
        contextlib.suppress(Exception),
        torch.no_grad(),
    ):  # a plugin may not run there: no shapes then
        twin(torch.empty(1, 3, *size, device="meta"))
    return shapes


def as_network(model: nn.Module, loader: Iterable[Any]) -> Network:
    """Wraps a bare model; the classes are the loader's, else numbered ones with made-up colours."""
    config: dict[str, Any] = getattr(model, "smp_camvid_config", {})
    if "classes" not in config:
        raise UsageError(
            "The Trainer takes models of smp_camvid.create_model, which know how to be rebuilt.",
            "A model of your own becomes one through the entry-point group smp_camvid.models.",
        )
    table = getattr(getattr(loader, "dataset", None), "table", None)
    if table is None:
        count = int(config["classes"])
        colors = tuple((37 * i % 256, 97 * i % 256, 151 * i % 256) for i in range(count))
        table = ClassTable("dataset", tuple(f"class {i}" for i in range(count)), colors)
    pretrained = getattr(model, "smp_camvid_encoder_weights", None)
    found = normalization_for(config["arch"], config.get("encoder_name"), pretrained)
    return Network(model, found.mean, found.std, table, found.name)


ELSEWHERE = "given in Python"
"""data.path of a run whose loaders are not ours: no command can open them."""


def run_recipe(
    recipe: Recipe | None, network: Network, loader: Iterable[Any], train: TrainConfig
) -> Recipe:
    """The recipe as it is, or for a Trainer used from Python the part of it that is known."""
    if recipe is None:
        config = network.config
        arch = config.pop("arch")
        options = {k: v for k, v in config.items() if k not in NOT_OPTIONS}
        made_from = made_from_of(loader)
        data = made_from.get("data") or {"path": ELSEWHERE, "size": _frame_size(loader)}
        recipe = Recipe(
            name=arch,
            model=ModelConfig(arch=arch, **options),
            data=DataConfig.model_validate(data),
            augment=tuple(Step.model_validate(step) for step in made_from.get("augment", ())),
        )
        train = train.model_copy(update=made_from.get("train", {}))
    return recipe.model_copy(update={"train": train})


def made_from_of(loader: Iterable[Any]) -> Mapping[str, Any]:
    """What `smp_camvid.loaders` was asked for; empty for other loaders."""
    made_from: Mapping[str, Any] = getattr(getattr(loader, "dataset", None), "made_from", {})
    return made_from


def _frame_size(loader: Iterable[Any]) -> tuple[int, int]:
    """Height and width frames are trained at."""
    cache = getattr(getattr(loader, "dataset", None), "cache", None)
    frame = cache.image(0) if cache is not None else _first(loader)[0][0].permute(1, 2, 0)
    return int(frame.shape[0]), int(frame.shape[1])


def _first(loader: Iterable[Any]) -> Any:
    """The first batch; a look must not move the generators that training draws from."""
    with torch.random.fork_rng(devices=[]):
        return next(iter(loader))
