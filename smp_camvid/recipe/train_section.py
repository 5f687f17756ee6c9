"""The table [train] of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from smp_camvid.recipe.sections import Section


def _frames_or_auto(value: Any) -> Any:
    # One message instead of one for each side of the union.
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise PydanticCustomError("frames", "should be auto or a whole number of at least 1")


def _one_or_more(names: Any) -> Any:
    """A single name stands for a list of one."""
    return (names,) if isinstance(names, str) else names


class TrainConfig(Section):
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
    """Compute inner activations again in backward: a fifth to half the memory less, slower."""
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
