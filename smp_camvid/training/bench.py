"""How fast this machine is: what `smp-camvid bench` measures, each within seconds of its own."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smp_camvid.data.cache import FrameCache
from smp_camvid.data.camvid import open_dataset
from smp_camvid.data.classes import CAMVID11, FIXED_TABLES
from smp_camvid.data.loaders import train_loader
from smp_camvid.data.room import in_words
from smp_camvid.data.synthetic import generate
from smp_camvid.errors import DeviceError
from smp_camvid.evaluation.speed import peak_of_process
from smp_camvid.inference import box
from smp_camvid.inference.device import resolve_device
from smp_camvid.inference.predictor import Segmenter, load
from smp_camvid.inference.torch_engine import open_engine
from smp_camvid.models.flops import count_flops
from smp_camvid.recipe import Recipe
from smp_camvid.training.batch_size import UNSEEN, Trial, largest_picture
from smp_camvid.training.determinism import Determinism
from smp_camvid.training.experiment import build_network, crop_of, crop_plan
from smp_camvid.training.out_of_memory import training_told
from smp_camvid.training.step_memory import made_up_batch

OnStep = Callable[[int, int], None]
FRAMES = 8  # drawn, to measure the data pipeline and prediction with


@dataclass(frozen=True)
class Seconds:
    """Of one call, over `calls` of them; the first of all, which warms up, is not among them."""

    median: float
    low: float
    high: float
    calls: int

    def per_second(self, work: float) -> float:
        return work / self.median

    def document(self) -> dict[str, float]:
        return {"median": self.median, "low": self.low, "high": self.high, "calls": self.calls}


def time_calls(what: Callable[[], object], device: torch.device, seconds: float) -> Seconds:
    """Calls until `seconds` are over, twice at least; where one call takes longer, that one."""
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < 2 or (time.perf_counter() - began < seconds and len(took) < 1000):
        asked = time.perf_counter()
        what()
        synchronize(device)
        took.append(time.perf_counter() - asked)
        if took[0] > seconds:
            break
    counted = took[1:] or took
    return Seconds(statistics.median(counted), min(counted), max(counted), len(counted))


def synchronize(device: torch.device) -> None:
    """Waits for what was begun."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def matmul_rate(device: torch.device, dtype: torch.dtype | None, seconds: float) -> float:
    """Floating-point operations a second in large products of square matrices."""
    size = 8192 if device.type == "cuda" else 1536
    a = torch.randn(size, size, device=device).to(dtype or torch.float32)
    out = torch.empty_like(a)
    timed = time_calls(lambda: torch.mm(a, a, out=out), device, seconds)
    # The fastest: a peak is what the machine can do while nobody else uses it.
    return 2 * size**3 / timed.low


class Bench:
    """One recipe on one device.  Raises DeviceError when a step does not fit into the memory."""

    def __init__(self, recipe: Recipe, seconds: float = 12.0) -> None:
        self.recipe, self.seconds = recipe, seconds
        self.device = resolve_device(recipe.train.device)
        table = FIXED_TABLES.get(recipe.data.classes, CAMVID11)
        # Pretrained weights would be fetched, and are no faster than others.
        self.network = build_network(recipe, table, weights_follow=True)
        self.picture = largest_picture(crop_of(recipe.data), crop_plan(recipe))
        trial = Trial(recipe, self.network, self.picture, self.device)
        self.learner, self.arithmetic = trial.learner, trial.learner.arithmetic
        auto = recipe.train.batch_size == "auto"
        self.frames = 4 if auto else recipe.train.frames_per_batch
        if not trial.fits(self.frames):
            needed = in_words(int(UNSEEN * trial.memory.total(self.frames)))
            raise DeviceError(
                f"A training step of {self.frames} frames needs about {needed} of memory, more "
                f"than is free on {self.arithmetic.device}.",
                "Lower --batch-size, or --size.",
            )

    def document(self, on_step: OnStep = lambda done, total: None) -> dict[str, Any]:
        """What `bench --json` prints, but for the facts about the machine."""
        began = time.perf_counter()
        found: dict[str, Any] = {"settings": self.settings()}
        parts = (("matmul", self.matmul), ("training", self.training),
                 ("prediction", self.prediction), ("data", self.data))  # fmt: skip
        for number, (name, measure) in enumerate(parts):
            on_step(number, len(parts))
            found[name] = measure()
        training = found["training"]
        if training["flops_per_second"] is not None:
            peak = found["matmul"]["flops_per_second"]
            training["share_of_matmul"] = training["flops_per_second"] / peak
        cuda = self.device.type == "cuda"
        found["peak_memory_bytes"] = (
            torch.cuda.max_memory_allocated(self.device) if cuda else peak_of_process()
        )
        found["seconds"] = time.perf_counter() - began
        return found

    def settings(self) -> dict[str, Any]:
        model = self.recipe.model
        return {
            "recipe": self.recipe.name,
            "arch": model.arch,
            "encoder": model.options.get("encoder_name"),
            "parameters": self.network.num_parameters,
            "size": list(self.recipe.data.size),
            "training_picture": list(self.picture),
            "batch_size": self.frames,
            "device": str(self.arithmetic.device),
            "precision": self.arithmetic.precision,
            "arithmetic": str(self.arithmetic),
        }

    def matmul(self) -> dict[str, Any]:
        """In the arithmetic of training, and in float32."""
        rate = matmul_rate(self.device, self.arithmetic.dtype, self.seconds / 8)
        plain = rate
        if self.arithmetic.dtype is not None:
            plain = matmul_rate(self.device, None, self.seconds / 8)
        return {
            "precision": self.arithmetic.precision,
            "flops_per_second": rate,
            "fp32_flops_per_second": plain,
        }

    def training(self) -> dict[str, Any]:
        """Real steps over made-up frames that are on the device already."""
        weighted = bool(self.recipe.loss.border_w0)
        batch = made_up_batch(self.learner, self.frames, self.picture, weighted)
        Determinism(False).switch()  # as a run does: cuDNN tries its kernels
        with training_told(self.recipe, self.network, self.arithmetic, [batch.image]):
            step = time_calls(lambda: self.learner.step([batch]), self.device, self.seconds)
        flops = _flops(partial(count_flops, self.learner.trained, self.picture))
        rate = step.per_second(self.frames)
        return {
            "seconds_per_step": step.document(),
            "images_per_second": rate,
            "flops_per_image": flops,
            "flops_per_second": None if flops is None else flops * rate,
            "share_of_matmul": None,
        }

    def prediction(self) -> list[dict[str, Any]]:
        """One frame at a time through `Segmenter`, the model of the recipe and the shipped one."""
        device = str(self.device)
        network = copy.deepcopy(self.network)
        metadata = {"train_size": list(self.recipe.data.size)}
        segmenters = [Segmenter(open_engine(network, metadata, "", device, "auto"))]
        if box.DEFAULT in box.names():
            segmenters.append(load(box.DEFAULT, device="cpu"))
        names = (self.recipe.name, box.DEFAULT)
        return [
            self._predicted(name, segmenter)
            for name, segmenter in zip(names, segmenters, strict=False)
        ]

    def _predicted(self, name: str, segmenter: Segmenter) -> dict[str, Any]:
        # The shipped model's figure is for comparing machines, so its frame is always the same.
        height, width = (360, 480) if segmenter.source else self.recipe.data.size
        frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        device = torch.device(segmenter.device)
        timed = time_calls(lambda: segmenter.predict(frame), device, self.seconds / 4)
        onnx = type(segmenter.engine).__name__ == "OnnxEngine"
        return {
            "model": name,
            "engine": "onnxruntime" if onnx else "torch",
            "device": segmenter.device,
            "size": [height, width],
            "seconds_per_image": timed.document(),
            "images_per_second": timed.per_second(1),
        }

    def data(self) -> dict[str, Any]:
        """Drawn frames, decoded, and out of the cache augmented, by one process."""
        size, cpu = self.recipe.data.size, torch.device("cpu")
        with tempfile.TemporaryDirectory() as place:
            root = generate(Path(place, "data"), frames={"train": FRAMES, "val": 1}, size=size)
            dataset = open_dataset(root, "11", need=("train",))
            frames = dataset.split("train")
            decoded = time_calls(
                lambda: [(dataset.load_image(f), dataset.load_label(f)) for f in frames],
                cpu,
                self.seconds / 6,
            )
            cache = FrameCache.open(dataset, "train", size[0], "image", Path(place, "cache"))
            loader = train_loader(
                cache,
                size=crop_of(self.recipe.data),
                augment=[step.model_dump() for step in self.recipe.augment],
                batch_size=FRAMES,
                seed=0,
                crops=crop_plan(self.recipe),
            )
            made = time_calls(lambda: list(loader), cpu, self.seconds / 6)
        return {
            "size": list(size),
            "decoded_per_second": decoded.per_second(FRAMES),
            "augmented_per_second": made.per_second(FRAMES),
        }


def _flops(count: Callable[[], Any]) -> int | None:
    """Operations of a step over one frame; None for a plugin that does not run on shapes."""
    try:
        return int(count().step)
    except Exception:  # it may raise anything
        return None
