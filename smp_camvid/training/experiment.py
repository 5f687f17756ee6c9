"""The composition root: a recipe becomes a dataset, a model and a Trainer, checked in that order.

Nothing is written to the save folder before everything that can be known beforehand is known:
recipe, device, dataset, every label, the weights to start from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from smp_camvid import __version__, runs
from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import CamVid, open_dataset
from smp_camvid.data.classes import FIXED_TABLES, ClassTable
from smp_camvid.data.crops import CropPlan
from smp_camvid.data.hold_out import hold_out
from smp_camvid.data.loaders import eval_loader, train_loader
from smp_camvid.data.sampling import share_of
from smp_camvid.data.transforms import build_augmentation
from smp_camvid.errors import UsageError
from smp_camvid.evaluation.split import score_size
from smp_camvid.inference.device import resolve_device
from smp_camvid.inference.opening import find_weights
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.models.pretrained import (
    CAMVID_NORMALIZATION,
    IMAGENET_NORMALIZATION,
    Normalization,
    check_encoder,
    normalization_for,
)
from smp_camvid.models.weights import load_into
from smp_camvid.recipe import NOT_OPTIONS, DataConfig, ModelConfig, Recipe
from smp_camvid.registry import ARCHITECTURES, architecture_names, check_loggers
from smp_camvid.training.batch_size import largest_picture, resolve_batch_size
from smp_camvid.training.distributed import join, own_device
from smp_camvid.training.early_stopping import check_metric
from smp_camvid.training.events import Listener
from smp_camvid.training.objective import build_border_weight
from smp_camvid.training.supervision import check_supervisable
from smp_camvid.training.trainer import Trainer

OnProgress = Callable[[int, int], None]


def build_trainer(
    recipe: Recipe,
    *,
    listeners: Sequence[Listener] | None = None,
    on_decoded: OnProgress | None = None,
    weights_follow: bool = False,
) -> Trainer:
    """Everything a run needs, from its recipe.  Raises before anything is written.

    `weights_follow`: a checkpoint will fill the model, so none of the weights it once started
    from is asked for.
    """
    data, cfg = recipe.data, recipe.train
    group = join(own_device(resolve_device(cfg.device)))
    check_loggers(cfg.loggers)
    if cfg.batch_size != "auto":
        share_of(
            cfg.batch_size, group.world
        )  # what cannot be shared out is refused before decoding
    if group.is_main:
        runs.check_writable(Path(cfg.save_dir))
    steps = [step.model_dump() for step in recipe.augment]
    build_augmentation(steps, crop_of(data))  # a wrong step is named before any frame is decoded
    splits = (data.train_split,) if data.hold_out else (data.train_split, data.val_split)
    dataset = open_dataset(data.path, data.classes, data.split_source, need=splits)
    dataset = hold_out(dataset, data.hold_out) if data.hold_out else dataset
    label_size = score_size(data.score_size, dataset)
    on_decoded = on_decoded if group.is_main else None
    with group.first_on_node():  # the others find weights fetched and frames decoded
        network = build_network(recipe, dataset.table, weights_follow)
        open_cache = partial(FrameCache.open, dataset, on_progress=on_decoded)
        train_cache = open_cache(data.train_split, data.size[0], "image")
        val_cache = open_cache(data.val_split, data.size[0], label_size)
        border = build_border_weight(recipe.loss, train_cache.labels, len(dataset.table))
        if border is not None:
            train_cache.border_weights(border)
    plan = crop_plan(recipe)
    picture = largest_picture(crop_of(data), plan)
    recipe, notice = resolve_batch_size(recipe, network, picture, group)
    batch_size = recipe.train.frames_per_batch
    learned = train_loader(
        train_cache,
        size=crop_of(data),
        augment=steps,
        batch_size=batch_size,
        seed=cfg.seed,
        workers=cfg.workers,
        rank=group.rank,
        world=group.world,
        crops=plan,
        border_weight=border,
    )
    judged = eval_loader(
        val_cache,
        batch_size=share_of(batch_size, group.world),
        workers=0,
        rank=group.rank,
        world=group.world,
    )
    located = data.model_copy(update={"path": _located(data.path, dataset)})
    trainer = Trainer(
        network,
        learned,
        judged,
        recipe=recipe.model_copy(update={"data": located}),
        metadata=describe(recipe, dataset, label_size),
        listeners=listeners,
    )
    trainer.notices += [notice] if notice else []
    return trainer


def _located(path: str, dataset: CamVid) -> str:
    """The data's absolute path, so that `evaluate` finds it from any folder."""
    return path if path == "synthetic" else str(dataset.root.resolve())


def find_problems(values: Mapping[str, Any]) -> list[str]:
    """What albumentations, timm, smp and the vanilla U-Net say of a recipe's nested values."""
    problems = _logger_problems(values.get("train"))
    steps = values.get("augment", ())
    for number, step in enumerate(steps if isinstance(steps, list | tuple) else ()):
        if isinstance(step, Mapping) and isinstance(step.get("name"), str):
            attempt = partial(build_augmentation, [step], (64, 64))
            problems += _said(f"augment.{number}", attempt)
    model = values.get("model", {})
    arch = model.get("arch", "vanilla") if isinstance(model, Mapping) else None
    problems += _tool_problems(values, arch)
    if not isinstance(arch, str) or arch not in ARCHITECTURES:
        return problems  # a plugin's, built once and with everything else known to be right
    taken = set(ARCHITECTURES[arch]) - set(NOT_OPTIONS)
    known = {key: value for key, value in model.items() if key in taken}
    if isinstance(known.get("encoder_name"), str):
        wrong = _said("model.encoder_name", lambda: check_encoder(known["encoder_name"]))
        if wrong:
            return problems + wrong
    return problems + _said("model", lambda: _try_model(arch, known))


def _tool_problems(values: Mapping[str, Any], arch: Any) -> list[str]:
    """Tools of training that do not fit the model, or the classes where they are known by now."""
    train, data = values.get("train", {}), values.get("data", {})
    if not isinstance(train, Mapping) or not isinstance(data, Mapping):
        return []  # pydantic says so
    problems = []
    if train.get("deep_supervision") and isinstance(arch, str) and arch in architecture_names():
        problems += _said("train.deep_supervision", lambda: check_supervisable(arch))
    table = FIXED_TABLES.get(str(data.get("classes", "11")))
    metric = train.get("stop_metric")
    if table is not None and isinstance(metric, str):
        problems += _said("train.stop_metric", lambda: check_metric(metric, table))
    return problems


def _logger_problems(train: Any) -> list[str]:
    names = train.get("loggers", ()) if isinstance(train, Mapping) else ()
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return []  # pydantic says so
    return [
        problem
        for name in names
        for problem in _said("train.loggers", partial(check_loggers, [name]))
    ]


def _try_model(arch: str, options: Mapping[str, Any]) -> None:
    """Builds the model without memory and without its pretrained weights: it checks the values."""
    bare = {**options, "encoder_weights": None} if "encoder_weights" in options else dict(options)
    try:
        with torch.device("meta"):
            create_model(arch, **bare)
    except UsageError:
        # Some encoders compute with numbers while they are built, which that device has not.
        with torch.random.fork_rng(devices=[]):
            create_model(arch, **bare)


def _said(key: str, attempt: Callable[[], object]) -> list[str]:
    try:
        attempt()
    except UsageError as error:
        return [f"{key}: {error}"]
    return []


def crop_of(data: DataConfig) -> tuple[int, int]:
    """The training crop, never larger than the frame: the rest would be void."""
    crop = data.crop or data.size
    return min(crop[0], data.size[0]), min(crop[1], data.size[1])


def crop_plan(recipe: Recipe) -> CropPlan:
    """How the crops change over the run; its last epochs are known from its length."""
    data, last = recipe.data, recipe.data.full_frame_epochs
    return CropPlan(
        rare=data.rare_crops,
        multi_scale=data.multi_scale,
        full_frame_from=recipe.train.epochs - last + 1 if last else None,
        frame_size=data.size,
    )


def build_network(recipe: Recipe, table: ClassTable, weights_follow: bool = False) -> Network:
    """The recipe's model with the dataset's classes, seeded, trained weights loaded if it asks."""
    model = recipe.model
    torch.manual_seed(recipe.train.seed)
    options = model.options
    if weights_follow and "encoder_weights" in options:
        options["encoder_weights"] = None
    bare = create_model(model.arch, in_channels=3, classes=len(table), **options)
    found = normalization(model)
    network = Network(bare, found.mean, found.std, table, found.name)
    if model.weights and not weights_follow:
        load_into(network, find_weights(model.weights)[0], reset_head=model.reset_head)
    return network


def normalization(model: ModelConfig) -> Normalization:
    """What the recipe names; auto is what the encoder's pretrained weights expect."""
    named = {"camvid": CAMVID_NORMALIZATION, "imagenet": IMAGENET_NORMALIZATION}
    if model.normalization in named:
        return named[model.normalization]
    encoder, weights = model.options.get("encoder_name"), model.options.get("encoder_weights")
    return normalization_for(model.arch, encoder, weights)


def describe(recipe: Recipe, dataset: CamVid, label_size: tuple[int, int] | None) -> dict[str, Any]:
    """What each weights file of the run says of its training."""
    return {
        "protocol": dataset.protocol(label_size),
        "family": dataset.family,
        "split_source": dataset.split_source,
        "hold_out": dataset.held_out,
        "train_split": recipe.data.train_split,
        "train_size": list(recipe.data.size),
        "score_size": list(label_size) if label_size else "native",
        "recipe": recipe.name,
        "package_version": __version__,
    }
