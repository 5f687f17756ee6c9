"""The averaged weights against the recurrence, written out in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from smp_camvid.data.classes import CAMVID11
from smp_camvid.models.factory import create_model
from smp_camvid.models.network import Network
from smp_camvid.training.averaging import Ema, decay_at


def build():
    torch.manual_seed(0)
    model = create_model("vanilla", base_channels=4, depth=2, norm="batch")
    return Network(model, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), CAMVID11).train()


def steps(network, count):
    """Some training; hands out after every step what a listener could see."""
    torch.manual_seed(2)  # dropout
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        image = torch.randint(0, 256, (2, 3, 32, 40), dtype=torch.uint8, generator=generator)
        target = torch.randint(0, 11, (2, 32, 40), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(network(image), target).backward()
        optimizer.step()
        yield {name: value.double().numpy() for name, value in network.state_dict().items()}


def recurrence(start, values, decay):
    """The rule: avg <- d avg + (1 - d) value, d = min(decay, (1 + n) / (10 + n)), n = 0, 1, ..."""
    average = start
    for n, value in enumerate(values):
        d = min(decay, (1 + n) / (10 + n))
        average = {name: d * average[name] + (1 - d) * value[name] for name in value}
    return average


def worst(ema, expected):
    """Largest deviation, relative to the largest value of a tensor, over the floating ones."""
    found = {
        n: t.double().numpy()
        for n, t in ema.network.state_dict().items()
        if t.dtype.is_floating_point
    }
    return max(
        np.abs(found[name] - expected[name]).max() / (np.abs(expected[name]).max() + 1e-12)
        for name in found
    )


@pytest.mark.parametrize(("decay", "count"), [(0.3, 3), (0.3, 12), (0.9999, 12)])
def test_the_recurrence(decay, count):
    network = build()
    start = {n: t.double().numpy().copy() for n, t in network.state_dict().items()}
    ema, seen = Ema(network, decay), []
    for values in steps(network, count):
        ema.update(network)
        seen.append({name: value.copy() for name, value in values.items()})
    expected = recurrence(start, seen, decay)
    assert worst(ema, expected) < 1e-6
    assert ema.updates == count
    # The controls: the weights themselves, another warm-up, and an update left out.
    assert worst(ema, seen[-1]) > 1e-3
    assert worst(ema, recurrence(start, seen, 0.05)) > 1e-4
    assert worst(ema, recurrence(start, seen[:-1], decay)) > 1e-4


def test_the_decay_warms_up():
    assert [decay_at(n, 0.999) for n in (0, 1, 8)] == [1 / 10, 2 / 11, 9 / 18]
    assert decay_at(8990, 0.999) == pytest.approx(8991 / 9000) and decay_at(8991, 0.999) == 0.999
    assert decay_at(10**6, 0.5) == 0.5 and decay_at(0, 0.05) == 0.05


def test_statistics_are_averaged_and_counters_copied():
    network = build()
    ema = Ema(network, 0.9)
    for _ in steps(network, 3):
        ema.update(network)
    ours, theirs = ema.network.state_dict(), network.state_dict()
    counters = [name for name in ours if name.endswith("num_batches_tracked")]
    assert counters and all(int(ours[name]) == 3 for name in counters)
    moved = [name for name in ours if name.endswith(("running_mean", "running_var", "weight"))]
    assert not any(torch.equal(ours[name], theirs[name]) for name in moved)
    assert torch.equal(ours["mean"], theirs["mean"]) and torch.equal(ours["std"], theirs["std"])


def test_it_judges_and_disturbs_nothing():
    network, alone = build(), build()
    ema = Ema(network, 0.9)
    for _ in steps(network, 3):
        ema.update(network)
    for _ in steps(alone, 3):
        pass
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), alone.state_dict().values(), strict=True)
    )
    assert network.training and not ema.network.training
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    logits = ema.network(torch.zeros(1, 3, 20, 20, dtype=torch.uint8))
    assert logits.shape == (1, 11, 20, 20) and not logits.requires_grad
    assert ema.network.table is network.table or ema.network.table == network.table


def test_it_goes_on_where_it_was_saved(tmp_path):
    network = build()
    ema, saved, other = Ema(network, 0.99), None, Ema(build(), 0.99)
    for number, _ in enumerate(steps(network, 8)):
        ema.update(network)
        if number >= 4:
            other.update(network)
        if number == 3:
            torch.save(ema.state_dict(), tmp_path / "ema.pt")
            saved = torch.load(tmp_path / "ema.pt", weights_only=True)
            other.load_state_dict(saved)
    pairs = zip(ema.network.state_dict().values(), other.network.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) and other.updates == 8
    # The control: without the count of updates the average is another.
    forgetful = Ema(build(), 0.99)
    forgetful.load_state_dict({**saved, "updates": 0})
    forgetful.update(network)
    right = Ema(build(), 0.99)
    right.load_state_dict(saved)
    right.update(network)
    name = "model.encoder.levels.0.0.weight"
    assert not torch.equal(forgetful.network.state_dict()[name], right.network.state_dict()[name])


def test_nothing_is_read_back_from_the_device():
    """On torch's meta device there are no numbers: whatever read one would raise."""
    network = build().to("meta")
    ema = Ema(network, 0.9)
    ema.update(network)
    assert ema.updates == 1
