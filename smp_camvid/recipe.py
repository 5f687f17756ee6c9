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
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from smp_camvid import registry
from smp_camvid.errors import UsageError, did_you_mean

_SPLITS = r"^(train|val|test)(\+(train|val|test))*$"
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


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
    score_size: Size | Literal["auto", "native"] = "auto"
    """Label size scores are counted at; auto is 360x480 for CamVid, native for other datasets."""
    train_split: Annotated[str, Field(pattern=_SPLITS)] = "train"
    """Split to learn from; several are joined with a plus sign."""
    val_split: Annotated[str, Field(pattern=_SPLITS)] = "val"
    """Split to judge on after each epoch."""


class Step(_Section):
    """One augmentation: an albumentations class (or ElasticDeformation) and its arguments."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    name: str
    """Class name, such as HorizontalFlip."""
    p: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Probability of applying it."""


class LossConfig(_Section):
    """What is minimised.  Void pixels never count."""

    name: Literal["cross_entropy"] = "cross_entropy"
    """Pixel-wise cross-entropy."""
    class_weights: Literal["none", "log", "median"] = "none"
    """none, log: 1/ln(c + p) with p a class's share of pixels, median: median frequency."""
    log_offset: Annotated[float, Field(gt=1)] = 1.1
    """c of the log weights; nearer to 1 means stronger weights."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread over all classes."""
    border_w0: Annotated[float, Field(ge=0)] = 0.0
    """Weight w0 of the border between neighbours (U-Net paper, eq. 2: 10); 0 is off."""
    border_sigma: Annotated[float, Field(gt=0)] = 5.0
    """Width sigma of the border weights, pixels at the training size."""


class TrainConfig(_Section):
    """How it learns."""

    epochs: Annotated[int, Field(ge=1)] = 50
    """Passes over the training frames."""
    batch_size: Annotated[int, Field(ge=1)] = 4
    """Frames per forward pass."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches per optimizer step; the loss is divided by all pixels they count."""
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
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of initialisation, frame order and augmentation."""
    deterministic: bool = False
    """Refuse operations that differ between runs on CUDA (slower)."""
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
    keep: Annotated[int, Field(ge=0)] = 3
    """How many of the weights of every n epochs are kept, newest first; 0 keeps all."""
    save_plots: bool = True
    """Write curves and prediction pictures."""
    show_plots: bool = False
    """Also show them, in a notebook."""
    verbose: Annotated[int, Field(ge=0, le=3)] = 1
    """0 errors only; 1 architecture and progress; 2 and the optimizer; 3 and parameter sizes."""


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


def value_of(recipe: Recipe, key: str) -> Any:
    """The value of a dotted key, as JSON would hold it."""
    return dict(_flatten(recipe.model_dump(mode="json")))[key]


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
        return TrainConfig.model_validate({**section.model_dump(), **changes})
    except ValidationError as error:
        listed = "".join(f"\n  - {_explain(e, TrainConfig)}" for e in error.errors())
        raise UsageError(f"The Trainer's options have problems:{listed}") from None


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
