"""What `smp-camvid predict img.png` replaces: torch, segmentation-models-pytorch, and thirty lines.

    python benchmarks/plain_predict.py PICTURE OUT_FOLDER

Writes the mask and the overlay with the weights of the model in the box.
"""

import json
import sys
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

BOX = Path(__file__).parent.parent / "smp_camvid" / "box" / "camvid-lite0" / "model.safetensors"


def main() -> None:
    picture, out = Path(sys.argv[1]), Path(sys.argv[2])
    with safe_open(BOX, "pt") as file:
        about = json.loads(file.metadata()["smp_camvid"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    options = about["options"]
    known = ("encoder_name", "encoder_weights", "decoder_channels", "classes", "in_channels")
    model = smp.Unet(**{name: options[name] for name in known})
    model.load_state_dict(
        {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    )
    model.eval()
    image = Image.open(picture).convert("RGB")
    height = about["train_size"][0]
    frame = image.resize((round(image.width * height / image.height), height), Image.Resampling.BOX)
    x = torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None].float() / 255
    x = (x - tensors["mean"]) / tensors["std"]
    pad = [-n % 32 for n in x.shape[-2:]]
    with torch.inference_mode():
        logits = model(F.pad(x, (0, pad[1], 0, pad[0])))[..., : x.shape[-2], : x.shape[-1]]
        logits = F.interpolate(logits, (image.height, image.width), mode="bilinear")
    mask = logits.argmax(1)[0].to(torch.uint8).numpy()
    colors = np.array(about["classes"]["colors"], np.uint8)[mask]
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(out / f"{picture.stem}_mask.png")
    overlay = (np.array(image) * 0.5 + colors * 0.5).round().astype(np.uint8)
    Image.fromarray(overlay).save(out / f"{picture.stem}_overlay.png")


if __name__ == "__main__":
    main()
