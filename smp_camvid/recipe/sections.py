"""The tables of a recipe but [train], which has a module of its own (train_section.py)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

_SPLITS = r"^(train|val|test)(\+(train|val|test))*$"
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Factor = Annotated[float, Field(gt=0, le=4)]


class Section(BaseModel):
    """A table of a recipe: frozen, unknown keys refused, help texts from the docstrings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelConfig(Section):
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


class DataConfig(Section):
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


class Step(Section):
    """One augmentation: an albumentations class (or ElasticDeformation) and its arguments."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    name: str
    """Class name, such as HorizontalFlip."""
    p: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Probability of applying it."""


class LossConfig(Section):
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
