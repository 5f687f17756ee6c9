"""Train, judge and use U-Nets on the CamVid road-scene dataset.

    import smp_camvid
    train_loader, val_loader = smp_camvid.loaders("data/camvid", size=(180, 240), batch_size=4)
    model = smp_camvid.create_model("vanilla", classes=11, norm="batch")
    trainer = smp_camvid.Trainer(model, train_loader, val_loader, epochs=50, lr=2e-4)
    trainer.train()
    result = smp_camvid.load("runs/vanilla-1")("img.png")    # .mask .probs .overlay()

Names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from smp_camvid.registry import register_with_smp

__version__ = "0.1.0"

if TYPE_CHECKING:
    from smp_camvid.data.camvid import open_dataset
    from smp_camvid.data.loaders import loaders
    from smp_camvid.errors import SmpCamvidError
    from smp_camvid.evaluation.evaluate import evaluate
    from smp_camvid.inference.export import export
    from smp_camvid.inference.prediction import Prediction
    from smp_camvid.inference.predictor import Segmenter, load
    from smp_camvid.models.factory import create_model, from_pretrained
    from smp_camvid.training.trainer import Trainer

register_with_smp()  # smp.create_model("vanilla") works from here on

_HOMES = {
    "open_dataset": "smp_camvid.data.camvid",
    "loaders": "smp_camvid.data.loaders",
    "SmpCamvidError": "smp_camvid.errors",
    "evaluate": "smp_camvid.evaluation.evaluate",
    "export": "smp_camvid.inference.export",
    "Prediction": "smp_camvid.inference.prediction",
    "Segmenter": "smp_camvid.inference.predictor",
    "load": "smp_camvid.inference.predictor",
    "create_model": "smp_camvid.models.factory",
    "from_pretrained": "smp_camvid.models.factory",
    "Trainer": "smp_camvid.training.trainer",
}

__all__ = [
    "Prediction",
    "Segmenter",
    "SmpCamvidError",
    "Trainer",
    "__version__",
    "create_model",
    "evaluate",
    "export",
    "from_pretrained",
    "load",
    "loaders",
    "open_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smp_camvid' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
