"""A run is a recipe: TOML, checked whole before anything is read or built.

A recipe states its difference from the one it extends (`base` unless it says otherwise, one
level deep); command-line options come last.  Each field is declared, documented and given its
default here and nowhere else: the command line takes its help texts from these docstrings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from smp_camvid import registry
from smp_camvid.errors import UsageError, did_you_mean

_SPLITS = r"^(train|val|test)(\+(train|val|test))*$"
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Factor = Annotated[float, Field(gt=0, le=4)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelConfig(_Section):
    """The network.  Every other key is an option of the architecture's constructor."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    arch: str = "vanilla"
    """Architecture: vanilla, or any that segmentation-models-pytorch or a plugin knows."""
    normalization: Literal["auto", "camvid", "imagenet"] = "auto"
    """Mean and std the picture is normalised with; auto is what the encoder weights expect."""
    weights: str = ""
    """Start from trained weights: a run, a .safetensors file; empty for none."""
    reset_head: bool = False
    """Start a new output layer when `weights` were trained for other classes."""

    @property
    def options(self) -> dict[str, Any]:
        """The constructor's options; "none" stands for None, which TOML does not have."""
        given = dict(self.model_extra or {})
        if given.get("encoder_weights") == "none":
            given["encoder_weights"] = None
        return given


class DataConfig(_Section):
    """What is read."""

    path: str = "auto"
    """Dataset folder, or `synthetic`; auto is ./data/camvid, ./CamVid, the user data folder."""
    classes: Literal["11", "32", "dataset"] = "11"
    """11 merged classes, CamVid's 32 colours, or those of the folder's own class_dict.csv."""
    split_source: Literal["standard", "folders"] = "standard"
    """Standard 367/101/233 split by file name, or the folders as they are."""
    size: Size = (360, 480)
    """Height and width frames are trained at; prediction keeps this height."""
    crop: Size | None = None
    """Height and width of the random training crop; absent means `size`."""
    rare_crops: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a training crop is placed on a pixel of a rare class; 0 is off."""
    multi_scale: tuple[_Factor, _Factor] | None = None
    """Factors on `crop`, lowest and highest; each batch draws one (multiples of 32 pixels)."""
    full_frame_epochs: Annotated[int, Field(ge=0)] = 0
    """So many last epochs train on crops of `size`, without rare-class crops and multi-scale."""
    score_size: Size | Literal["auto", "native"] = "auto"
    """Label size scores are counted at; auto is 360x480 for CamVid, native for other datasets."""
    train_split: Annotated[str, Field(pattern=_SPLITS)] = "train"
    """Split to learn from; several are joined with a plus sign."""
    val_split: Annotated[str, Field(pattern=_SPLITS)] = "val"
    """Split to judge on after each epoch."""
    hold_out: Annotated[str, Field(coerce_numbers_to_str=True)] = ""
    """Drive, such as 0001TP: learn from the rest of the train split, judge on it; empty is off."""

    @field_validator("hold_out")
    @classmethod
    def _divides_train(cls, drive: str, info: ValidationInfo) -> str:
        splits = (info.data.get("train_split"), info.data.get("val_split"))
        if drive and splits != ("train", "val") and None not in splits:
            raise PydanticCustomError(
                "splits", "should be empty unless train_split is train and val_split is val"
            )
        return drive

    @field_validator("multi_scale")
    @classmethod
    def _smaller_first(cls, factors: tuple[float, float] | None) -> tuple[float, float] | None:
        if factors and factors[0] > factors[1]:
            raise PydanticCustomError("range", "should be [lowest, highest]")
        return factors


class Step(_Section):
    """One augmentation: an albumentations class (or ElasticDeformation) and its arguments."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    name: str
    """Class name, such as HorizontalFlip."""
    p: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Probability of applying it."""


class LossConfig(_Section):
    """What is minimised: a weighted sum of terms.  Void pixels never count."""

    cross_entropy: _Weight = 1.0
    """Weight of pixel-wise cross-entropy; 0 is off, as for every term."""
    focal: _Weight = 0.0
    """Weight of the focal loss: cross-entropy times (1 - p)^focal_gamma."""
    dice: _Weight = 0.0
    """Weight of soft Dice, mean over the classes present in a frame."""
    lovasz: _Weight = 0.0
    """Weight of Lovasz-softmax (a frame's mean IoU), mean over the classes present in it."""
    ohem: _Weight = 0.0
    """Weight of the cross-entropy of a frame's hardest pixels."""
    focal_gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    """How strongly the focal loss turns away from easy pixels; 0 is cross-entropy."""
    ohem_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of a frame's counted pixels that are its hardest."""
    class_weights: Literal["none", "log", "median"] = "none"
    """none, log: 1/ln(c + p), p a class's share, median: its frequency (cross_entropy, focal)."""
    log_offset: Annotated[float, Field(gt=1)] = 1.1
    """c of the log weights; nearer to 1 means stronger weights."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread over all classes (cross_entropy)."""
    border_w0: Annotated[float, Field(ge=0)] = 0.0
    """Weight w0 of borders (U-Net paper, eq. 2: 10) in cross_entropy and focal; 0 is off."""
    border_sigma: Annotated[float, Field(gt=0)] = 5.0
    """Width sigma of the border weights, pixels at the training size."""

    @model_validator(mode="after")
    def _has_a_term(self) -> LossConfig:
        if not any((self.cross_entropy, self.focal, self.dice, self.lovasz, self.ohem)):
            raise PydanticCustomError(
                "section", "one of cross_entropy, focal, dice, lovasz and ohem must be above 0"
            )
        return self


def _frames_or_auto(value: Any) -> Any:
    # One message instead of one for each side of the union.
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise PydanticCustomError("frames", "should be auto or a whole number of at least 1")


def _one_or_more(names: Any) -> Any:
    """A single name stands for a list of one."""
    return (names,) if isinstance(names, str) else names


class TrainConfig(_Section):
    """How it learns."""

    epochs: Annotated[int, Field(ge=1)] = 50
    """Passes over the training frames."""
    batch_size: Annotated[int | Literal["auto"], BeforeValidator(_frames_or_auto)] = 4
    """Frames per batch, of all processes together; auto is what fits (see effective_batch)."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches per optimizer step; the loss is divided by all pixels they count."""
    effective_batch: Annotated[int, Field(ge=0)] = 0
    """Frames per step that batch_size auto keeps; 0: batch_size x accumulate as without auto."""
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-4
    """Peak learning rate."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """adam, adamw, sgd."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD; beta1 of Adam."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty (adam, sgd) or decoupled decay (adamw); norms and biases are left out."""
    schedule: Literal["constant", "cosine", "poly", "onecycle", "plateau"] = "constant"
    """Learning rate over the run; plateau halves it when the validation loss stands still."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Linear warm-up, epochs."""
    patience: Annotated[int, Field(ge=1)] = 5
    """Epochs without improvement before plateau halves the rate."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Largest gradient norm; 0 is off."""
    encoder_lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Factor on the encoder's learning rate; the decoder's is always `lr`."""
    freeze_encoder: Annotated[int, Field(ge=-1)] = 0
    """First epochs in which the encoder's weights and statistics stay; 0 is off, -1 all epochs."""
    freeze_norm: bool = False
    """BatchNorm keeps the statistics it starts with, everywhere; its weights still learn."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights, 0.999 for example; 0 is off."""
    deep_supervision: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of the loss of the decoder's inner outputs (vanilla, unet, unetplusplus); 0 is off."""
    activation_checkpointing: bool = False
    """Compute inner activations again in backward: about half the memory, up to a third slower."""
    sync_batchnorm: bool = False
    """BatchNorm over the frames of all processes (CUDA); else each normalises by its own."""
    stop_after: Annotated[int, Field(ge=0)] = 0
    """Stop early after n epochs without a better `stop_metric` on val; 0 is off."""
    stop_metric: str = "miou"
    """What early stopping watches: miou, accuracy, loss, or a class's name for its IoU."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of initialisation, frame order and augmentation."""
    deterministic: bool = False
    """Kernels that repeat on CUDA too (slower); those that do not are named."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of training; auto is bf16 where the machine does it well, else fp32."""
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    """Layout of pictures in memory; auto goes with the precision."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that load frames; 0 loads in the training process."""
    val_every: Annotated[int, Field(ge=1)] = 1
    """Validate every n-th epoch, and the last."""
    save_dir: Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, Path) else v)] = (
        "runs"
    )
    """Folder the numbered run folders are made in."""
    save_every: Annotated[int, Field(ge=1)] = 10
    """Weights, plots and pictures every n epochs."""
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    """Checkpoint every n optimizer steps, also inside an epoch; 0 goes by the clock (a minute)."""
    keep: Annotated[int, Field(ge=0)] = 3
    """How many of the weights of every n epochs are kept, newest first; 0 keeps all."""
    save_plots: bool = True
    """Write curves and prediction pictures."""
    show_plots: bool = False
    """Also show them, in a notebook."""
    loggers: Annotated[tuple[str, ...], BeforeValidator(_one_or_more)] = ()
    """Where the run is logged too: tensorboard, wandb, a plugin; --logger may be repeated."""
    verbose: Annotated[int, Field(ge=0, le=3)] = 1
    """0 errors only; 1 architecture and progress; 2 and the optimizer; 3 and parameter sizes."""

    @property
    def frames_per_batch(self) -> int:
        """`batch_size`, once it is a number (`training.batch_size` makes one of auto)."""
        assert isinstance(self.batch_size, int), "resolve_batch_size comes first"
        return self.batch_size


class Recipe(_Section):
    """Everything a run is made from."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "recipe"
    """Name of the run folder: letters, digits, dot, dash and underscore."""
    description: str = ""
    """One line for `recipes list`."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: tuple[Step, ...] = ()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()

    def to_toml(self) -> str:
        """The recipe with every value written out; reading it back gives an equal recipe."""
        values = {"extends": "", **_without_none(self.model_dump(mode="json"))}
        return tomli_w.dumps(values)


@dataclass(frozen=True)
class Resolved:
    """A recipe, and where each value came from: default, the base's name, its own, option."""

    recipe: Recipe
    origins: Mapping[str, str]


def flat_values(recipe: Recipe) -> dict[str, Any]:
    """Every value under its dotted key, as JSON would hold it."""
    return dict(_flatten(recipe.model_dump(mode="json")))


def value_of(recipe: Recipe, key: str) -> Any:
    """The value of a dotted key, as JSON would hold it."""
    return flat_values(recipe)[key]


def field_help(key: str) -> str:
    """The docstring of a field, `"train.epochs"` for example."""
    section, name = key.split(".")
    annotation = Recipe.model_fields[section].annotation
    assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation.model_fields[name].description or ""


# --- finding and reading ---------------------------------------------------------------------


def recipe_folder() -> Path:
    """Where the shipped recipes are: inside the installed package, or the root of a checkout."""
    package = Path(__file__).parent
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    return sorted(path.stem for path in recipe_folder().glob("*.toml"))


def find_recipe(name: str) -> Path:
    """A shipped recipe's name or a TOML file -> its path."""
    if name.endswith(".toml") or "/" in name or "\\" in name:
        path = Path(name)
        if not path.is_file():
            raise UsageError(
                f"There is no recipe file {name}.",
                "`smp-camvid recipes list` names the shipped ones.",
            )
        return path
    if name in recipe_names():
        return recipe_folder() / f"{name}.toml"
    raise UsageError(
        f"There is no recipe {name!r}. {did_you_mean(name, recipe_names())}".strip(),
        "`smp-camvid recipes list` shows all; a file is named by its path, ending in .toml.",
    )


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"Recipe {path} cannot be read: {error}.") from error


def _layers(name: str) -> list[tuple[str, dict[str, Any]]]:
    """What a recipe is made of, first to last: its parent, then itself."""
    path = find_recipe(name)
    own = read_toml(path)
    parent = own.pop("extends", "base")
    label = path.stem
    own.setdefault("name", label)
    if parent == "":
        return [(label, own)]
    if not isinstance(parent, str):
        raise UsageError(f"Recipe {path}: `extends` must be the name or file of one recipe.")
    beside = path.parent / parent  # a file is named from where the recipe lies
    parent_path = beside if parent.endswith(".toml") and beside.is_file() else find_recipe(parent)
    base = read_toml(parent_path)
    if base.pop("extends", "base") != "":
        raise UsageError(
            f"Recipe {path} extends {parent!r}, which extends another: one level is allowed.",
            f"Start from a copy of it: smp-camvid recipes copy {parent} mine.toml",
        )
    base.pop("name", None)
    base.pop("description", None)
    return [(parent_path.stem, base), (label, own)]


def parse_set(text: str) -> tuple[str, Any]:
    """`train.epochs=3` -> ("train.epochs", 3).  The value is TOML; what is not, is a string."""
    key, found, value = text.partition("=")
    key = key.strip()
    if not found or not key:
        raise UsageError(f"--set {text!r} is not key=value.", "For example --set train.epochs=3")
    try:
        return key, tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value.strip()


# --- merging ---------------------------------------------------------------------------------


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and not prefix:
            yield from _flatten(value, f"{key}.")
        else:
            yield prefix + key, value


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        section, dot, name = key.partition(".")
        if dot:
            table = nested.setdefault(section, {})
            if isinstance(table, dict):
                table[name] = value
        else:
            nested[key] = value
    return nested


FindProblems = Callable[[Mapping[str, Any]], list[str]]
"""Nested values -> sentences about what is wrong with them."""


def resolve(
    name: str, overrides: Sequence[tuple[str, Any]] = (), also: FindProblems | None = None
) -> Resolved:
    """Reads a recipe, lays the overrides on top and checks the whole.

    `also` finds what only the libraries behind the recipe know, such as the arguments of an
    augmentation (`training.experiment.find_problems`).  Raises UsageError listing every problem
    at once.
    """
    flat: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for label, values in [*_layers(name), ("option", dict(overrides))]:
        layer = dict(values if label == "option" else _flatten(values))
        _drop_stale_options(flat, layer)
        _keep_effective_batch(flat, layer)
        flat.update(layer)
        origins.update(dict.fromkeys(layer, label))
    recipe = check(_nest(flat), f"Recipe {name!r}", also)
    everything = dict(_flatten(recipe.model_dump(mode="json")))
    return Resolved(recipe, {key: origins.get(key, "default") for key in everything})


def _drop_stale_options(flat: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """A layer that names another architecture starts without the options of the former one."""
    arch = layer.get("model.arch")
    if arch is None or arch == flat.get("model.arch"):
        return
    known = registry.options_of(arch) if arch in registry.architecture_names() else ()
    for key in [k for k in flat if k.startswith("model.")]:
        name = key.removeprefix("model.")
        if name not in ModelConfig.model_fields and name not in known:
            del flat[key]


def _keep_effective_batch(flat: dict[str, Any], layer: dict[str, Any]) -> None:
    """A layer that asks for `auto` learns from as many frames a step as it would without."""
    asked = layer.get("train.batch_size")
    if asked is None:
        return
    before = flat.get("train.batch_size", TrainConfig.model_fields["batch_size"].default)
    accumulate = layer.get("train.accumulate", flat.get("train.accumulate", 1))
    if asked != "auto":
        flat.pop("train.effective_batch", None)  # it went with the auto of a layer below
    elif type(before) is int and type(accumulate) is int:
        kept = flat.get("train.effective_batch") or before * accumulate
        layer.setdefault("train.effective_batch", kept)


def check(
    values: Mapping[str, Any], what: str = "The recipe", also: FindProblems | None = None
) -> Recipe:
    """Validates nested values.  Raises UsageError with all problems, one a line."""
    problems = _model_problems(values.get("model", {})) + (also(values) if also else [])
    recipe = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems = [_explain(e) for e in error.errors()] + problems
    if recipe is None or problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise UsageError(
            f"{what} has {count}:{listed}",
            "\n`smp-camvid recipes show vanilla` prints the valid keys.",
        )
    return recipe


def check_section(section: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """`section` with `changes`, validated like a recipe.  Raises UsageError with all problems."""
    try:
        checked = TrainConfig.model_validate({**section.model_dump(), **changes})
    except ValidationError as error:
        listed = "".join(f"\n  - {_explain(e, TrainConfig)}" for e in error.errors())
        raise UsageError(f"The Trainer's options have problems:{listed}") from None
    registry.check_loggers(checked.loggers)
    return checked


# The data decides these two, the Trainer wraps the third.
NOT_OPTIONS = {
    "classes": "set by data.classes",
    "in_channels": "always 3, RGB",
    "activation": "the loss and the predictor work on logits",
    "aux_params": "the Trainer has no second output",
}


def _model_problems(model: Any) -> list[str]:
    """What pydantic cannot know: architectures and the options of their constructors."""
    if not isinstance(model, Mapping):
        return []
    arch = model.get("arch", "vanilla")
    if not isinstance(arch, str):
        return []
    if arch not in registry.architecture_names():
        guess = did_you_mean(arch, registry.architecture_names())
        return [f"model.arch: no architecture {arch!r}. {guess}".rstrip()]
    known = registry.options_of(arch)
    problems = []
    for key in model:
        if key in ModelConfig.model_fields or (key in known and key not in NOT_OPTIONS):
            continue
        if key in NOT_OPTIONS:
            problems.append(f"model.{key}: cannot be set ({NOT_OPTIONS[key]}).")
        else:
            guess = did_you_mean(key, [*ModelConfig.model_fields, *known])
            takes = (
                "" if guess else f"It takes {', '.join(k for k in known if k not in NOT_OPTIONS)}."
            )
            problems.append(f"model.{key}: {arch} has no such option. {guess or takes}")
    return problems


def _explain(error: Any, root: type[BaseModel] = Recipe) -> str:
    """One pydantic error -> one sentence."""
    key = ".".join(str(part) for part in error["loc"] if not str(part).startswith("function"))
    if error["type"] == "extra_forbidden":
        *parents, last = error["loc"]
        section: Any = root.model_fields[str(parents[0])].annotation if parents else root
        known = getattr(section, "model_fields", {})
        guess = did_you_mean(str(last), known)
        return f"{key}: unknown key. {guess or 'Known: ' + ', '.join(known) + '.'}"
    if error["type"] == "string_pattern_mismatch":
        meaning = _field_of(root, error["loc"]).description or ""
        return f"{key}: {error['input']!r} is none of these: {meaning}"
    message = error["msg"][0].lower() + error["msg"][1:]
    if error["type"] == "section":  # about several keys at once
        return f"{key}: {message}."
    value = repr(error["input"])
    return f"{key}: {message}, not {value if len(value) < 60 else type(error['input']).__name__}."


def _field_of(root: type[BaseModel], location: Sequence[Any]) -> Any:
    """The declaration a pydantic error points at."""
    *parents, last = [str(part) for part in location]
    section: Any = root.model_fields[parents[0]].annotation if parents else root
    return section.model_fields[last]


def _without_none(value: Any) -> Any:
    """TOML has no null; an absent key means None."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value
