"""Out of memory is recognised on every device and told with what to lower."""

from __future__ import annotations

import weakref

import pytest
import torch

from smp_camvid.data.classes import CAMVID11
from smp_camvid.errors import DeviceError
from smp_camvid.inference.device import Arithmetic
from smp_camvid.inference.out_of_memory import is_out_of_memory, judging_told, out_of_memory_told
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.recipe import Recipe, resolve
from smp_camvid.training.out_of_memory import remedies, training_told

CPU = torch.device("cpu")
FP32 = Arithmetic(CPU, None, torch.contiguous_format)
BF16 = Arithmetic(CPU, torch.bfloat16, torch.channels_last)

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total ..."),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB). Tried to allocate 2.50 GiB on"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you ..."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


def recipe(**changes: object) -> Recipe:
    return resolve("vanilla", [(k.replace("__", "."), v) for k, v in changes.items()]).recipe


def network() -> Network:
    with torch.device("meta"):
        net = create_model("vanilla", classes=11, base_channels=8)
    return Network(net, (0.5,) * 3, (0.25,) * 3, CAMVID11)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_device_has_its_words_for_it(error: Exception) -> None:
    assert is_out_of_memory(error)
    with (
        pytest.raises(DeviceError, match="out of memory: dancing does not fit"),
        out_of_memory_told(CPU, lambda: ("dancing", ["sit"])),
    ):
        raise error


def test_torchs_own_refusal_is_recognised() -> None:
    told = out_of_memory_told(CPU, lambda: ("a petabyte", ["less"]))
    with pytest.raises(DeviceError, match=r"\(1048576\.00 GiB more were asked for\)"), told:
        torch.empty(2**50, dtype=torch.uint8)


def test_other_errors_pass() -> None:
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")):
        assert not is_out_of_memory(error)
        with pytest.raises(type(error)), out_of_memory_told(CPU, lambda: ("", [])):
            raise error


def test_what_was_computed_is_let_go() -> None:
    """The error's traceback, which a notebook keeps, holds no tensors."""
    held = []

    def compute() -> None:
        large = torch.zeros(1000)
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(DeviceError) as caught, out_of_memory_told(CPU, lambda: ("", [])):
        compute()
    assert caught.value.__cause__ is not None  # --debug shows where
    assert held[0]() is None


def test_the_message_of_a_step() -> None:
    asked = recipe(train__batch_size=8, data__size=[360, 480])
    images = [torch.empty(8, 3, 360, 480, device="meta")]
    with (
        pytest.raises(DeviceError) as caught,
        training_told(asked, network(), FP32, images),
    ):
        raise ERRORS[0]
    assert str(caught.value) == (
        "This machine is out of memory: a training step of 8 frames of 360x480 (556x668 for the "
        "network) through vanilla with 0.5 million parameters in fp32 does not fit (2.50 GiB "
        "more were asked for). Change, in this order: --batch-size auto, or --batch-size 4 "
        "--accumulate 2; --set train.activation_checkpointing=true (slower, the same numbers); "
        "--precision bf16; --size 270x360."
    )
    assert caught.value.exit_code == 1


def test_what_is_done_already_is_not_advised() -> None:
    done = recipe(train__activation_checkpointing=True, train__batch_size=5, data__crop=[180, 240])
    assert remedies(done, BF16) == [
        "--batch-size auto", "--set data.crop=[134,180]",
    ]  # fmt: skip
    one = [torch.empty(1, 3, 360, 480)]
    with pytest.raises(DeviceError) as caught, training_told(recipe(), network(), BF16, one):
        raise ERRORS[0]
    assert "--batch-size" not in str(caught.value) and "1 frame of" in str(caught.value)


def test_the_message_of_a_forward_pass() -> None:
    with (
        pytest.raises(DeviceError, match=r"judging 6 frames of 32x48 at once.*--batch-size 3"),
        judging_told(torch.empty(6, 3, 32, 48)),
    ):
        raise ERRORS[0]
    with (
        pytest.raises(DeviceError, match=r"judging one frame .*: --device cpu\."),
        judging_told(torch.empty(1, 3, 32, 48)),
    ):
        raise ERRORS[0]
