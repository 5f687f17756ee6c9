"""Several processes that train as one, on torch.distributed; a single one is the trivial case.

torchrun starts the processes and tells each its rank; gradients travel by
DistributedDataParallel, everything else by all-reduce and broadcast.  Tensors on GPUs go over
NCCL, those of the CPU over gloo.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

# torch.distributed has them without saying so
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from smp_camvid import torchrun
from smp_camvid.errors import DeviceError, UsageError
from smp_camvid.training.last_words import use_board


class Dist:
    """One process: nothing to add up and nobody to wait for."""

    rank, world, local_rank, restarts = 0, 1, 0, 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder and speaks to the user."""
        return self.rank == 0

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes, in place."""
        return tensor

    def share(self, value: Any) -> Any:
        """The value that the main process has, in all."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in the order of ranks, in all."""
        return [value]

    def barrier(self) -> None:
        """Nobody goes on before everybody is here."""

    def launch(self) -> dict[str, Any]:
        """What environment.json says of the processes; nothing for a single one."""
        return {}

    def first_on_node(self) -> AbstractContextManager[None]:
        """One process of each machine runs the block, the others after it."""
        return nullcontext()

    def sync_norms(self, module: nn.Module) -> None:
        """From now on BatchNorm takes its statistics from the frames of all processes."""

    def wrap(self, module: nn.Module, image: Tensor) -> nn.Module:
        """The module whose backward averages gradients over the processes.

        `image` `[B, 3, H, W]`: a batch as it will get them.
        """
        return module

    def without_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        """Gradients add up locally: not the last batch of an optimizer step."""
        return nullcontext()

    def align(self, module: nn.Module) -> None:
        """BatchNorm's statistics become those of the main process, which are the ones saved.

        Each process has seen other frames.  DistributedDataParallel aligns them before a forward
        pass, so the last batch of an epoch leaves them apart.
        """


class Group(Dist):
    """The processes that torchrun started.  Collectives: every one of them makes every call."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.local_rank, self.restarts = torchrun.local_rank(), torchrun.restarts()
        self.device = device

    def add(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor.detach())
        return tensor

    def share(self, value: Any) -> Any:
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def barrier(self) -> None:
        # not dist.barrier: that of a GPU waits on the GPU, and no longer than NCCL is patient
        self.add(torch.zeros(()))

    def launch(self) -> dict[str, Any]:
        return {"processes": self.world, "backend": _backend(self.device), **torchrun.identity()}

    @contextlib.contextmanager
    def first_on_node(self) -> Iterator[None]:
        if self.local_rank == 0:
            yield
            self.barrier()
        else:
            self.barrier()
            yield

    def sync_norms(self, module: nn.Module) -> None:
        if self.device.type != "cuda":
            raise UsageError(
                f"train.sync_batchnorm needs GPUs; these processes compute on {self.device.type}.",
                "Leave it false: each process then normalises by its own frames.",
            )
        # Only here, it takes seconds.  timm's, since torch's drops the activation of timm's layers.
        from timm.layers import convert_sync_batchnorm

        convert_sync_batchnorm(module)

    def wrap(self, module: nn.Module, image: Tensor) -> nn.Module:
        gc.collect()  # the wrapper before this one may still listen to the gradients
        idle = parameters_out_of_reach(module, image)
        try:
            for parameter in idle:
                parameter.requires_grad_(False)
            if not any(parameter.requires_grad for parameter in module.parameters()):
                return module
            ids = [self.device] if self.device.type == "cuda" else None
            return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)
        finally:
            for parameter in idle:
                parameter.requires_grad_(True)

    def without_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        if isinstance(module, DistributedDataParallel):
            return module.no_sync()
        return nullcontext()

    def align(self, module: nn.Module) -> None:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def parameters_out_of_reach(module: nn.Module, image: Tensor) -> list[nn.Parameter]:
    """Parameters that learn but no output depends on; smp's encoders have some.

    EfficientNet's last convolution, the deep stages of an encoder that is used to a lower depth,
    the head of a ViT.  DistributedDataParallel would wait for their gradients, and with its
    `find_unused_parameters` send zeros for them in every step.  So they are found once, by a
    backward pass of a copy (which leaves statistics, gradients and generators of the module as
    they are), and left out when it is built.
    """
    twin = copy.deepcopy(module)
    learning = [(mine, its) for mine, its in _pairs(module, twin) if mine.requires_grad]
    if not learning:
        return []
    devices = [image.device] if image.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        output = twin.train()(image[:1].repeat(2, 1, 1, 1))  # BatchNorm takes no single value
    outputs = output if isinstance(output, list) else [output]
    total = sum(logits.float().sum() for logits in outputs)
    found = torch.autograd.grad(total, [its for _, its in learning], allow_unused=True)
    return [mine for (mine, _), grad in zip(learning, found, strict=True) if grad is None]


def _pairs(one: nn.Module, other: nn.Module) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    return zip(one.parameters(), other.parameters(), strict=True)


def own_device(device: torch.device) -> torch.device:
    """Each process of a machine takes the GPU of its local rank.

    Raises UsageError for a device that processes cannot share, DeviceError where there are fewer.
    """
    if not torchrun.launched() or device.type == "cpu":
        return device
    check_shareable(device, torchrun.local_world())
    if device.type == "cuda":
        device = torch.device("cuda", torchrun.local_rank()) if str(device) == "cuda" else device
        torch.cuda.set_device(device)
    return device


def check_shareable(device: torch.device, processes: int) -> None:
    """Raises UsageError or DeviceError unless `processes` of one machine can train on `device`."""
    if processes == 1 or device.type == "cpu":
        return
    if str(device) != "cuda":
        raise UsageError(
            f"--device {device} is one device, and each of {processes} processes needs its own.",
            "Use --device cuda, or cpu.",
        )
    if processes > torch.cuda.device_count():
        raise DeviceError(
            f"{processes} processes need as many GPUs; this machine has "
            f"{torch.cuda.device_count()}.",
            "Start fewer, or use --device cpu.",
        )


def join(device: torch.device) -> Dist:
    """The group this process belongs to: joined once, left when the process ends."""
    if not torchrun.launched() or not dist.is_available():
        return Dist()
    if not dist.is_initialized():
        if threads := torchrun.threads():
            torch.set_num_threads(threads)
        store, rank, world = next(rendezvous("env://"))
        # The agent's store outlives a restart, and with it the addresses of those before.
        own = PrefixStore(f"attempt {torchrun.restarts()}", store)
        use_board(PrefixStore("last words", own))
        bound = device if device.type == "cuda" else None
        dist.init_process_group(
            _backend(device), store=own, rank=rank, world_size=world, device_id=bound
        )
        atexit.register(_leave)
    return Group(device)


def _backend(device: torch.device) -> str:
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
