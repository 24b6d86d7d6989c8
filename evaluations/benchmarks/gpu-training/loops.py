"""The loops that this package's training is measured against: its own as they were in version 0.1, and a plain one.

Each calls `progress(done)` after every step and trains the network in place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

Progress = Callable[[int], None]
EPSILON, STEPS = 8 / 255, 7
STEP = 2.5 * EPSILON / STEPS
RATE, MOMENTUM, DECAY = 0.05, 0.9, 5e-4


def first_version(network: nn.Module, images: Tensor, labels: Tensor, batch: int, epochs: int, done: Progress) -> None:
    """`RecipeClassifier.fit` of version 0.1: float32, indices sent to the device in every step."""
    device, steps = next(network.parameters()).device, 0
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True)
    images, labels, rows = images.to(device), labels.to(device), torch.arange(len(images))
    network.train()
    for _ in range(epochs):
        epoch_loss = torch.zeros((), device=device)
        for picked in torch.randperm(len(rows)).split(batch):
            x = images[rows[picked].to(device)].to(device, non_blocking=True)
            y = labels[picked.to(device)]
            optimizer.param_groups[0]["lr"] = RATE
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(network(x), y)
            loss.backward()
            optimizer.step()
            epoch_loss += loss.detach() * len(picked)
            steps += 1
            done(steps)
        float(epoch_loss)


def first_version_madry(
    network: nn.Module, images: Tensor, labels: Tensor, batch: int, epochs: int, done: Progress, *, inner: str
) -> None:
    """`MadryPGDTrainer.fit` of version 0.1: the step in float32, the attack in `inner`."""
    device, steps = next(network.parameters()).device, 0
    optimizer = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True)
    images, labels = images.to(device), labels.to(device)
    shadow: nn.Module | None = None
    if inner == "bfloat16":
        shadow = copy.deepcopy(network).requires_grad_(False).eval().to(memory_format=torch.channels_last)
        shadow = shadow.to(torch.bfloat16)
    for _ in range(epochs):
        epoch_loss = torch.zeros((), device=device)
        for rows in torch.randperm(len(images)).to(device).split(batch):
            x, y = images[rows], labels[rows]
            network.eval()
            if shadow is not None:
                with torch.no_grad():
                    theirs = [*network.parameters(), *network.buffers()]
                    for own, their in zip([*shadow.parameters(), *shadow.buffers()], theirs, strict=True):
                        own.copy_(their)
            low, high = (x - EPSILON).clamp_(0, 1), (x + EPSILON).clamp_(0, 1)
            point = torch.rand(x.shape, device=device).mul_(2 * EPSILON).sub_(EPSILON).add_(x).clamp_(0, 1)
            for _ in range(STEPS):
                point.requires_grad_(True)
                logits = network(point) if shadow is None else shadow(point.to(torch.bfloat16)).float()
                (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, y, reduction="sum"), point)
                point = torch.minimum(torch.maximum(point.detach().add_(gradient.sign_(), alpha=STEP), low), high)
            network.train()
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(network(point), y)
            loss.backward()
            optimizer.step()
            epoch_loss += loss.detach() * len(x)
            steps += 1
            done(steps)
        float(epoch_loss)


def plain(
    network: nn.Module, images: Tensor, labels: Tensor, batch: int, epochs: int, done: Progress, *, attacked: bool
) -> None:
    """What one writes by hand: everything on the device, bfloat16 autocast, channels last, a fused optimiser."""
    device, steps = next(network.parameters()).device, 0
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), RATE, MOMENTUM, weight_decay=DECAY, nesterov=True, fused=device.type == "cuda" or None
    )
    images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return nn.functional.cross_entropy(network(x).float(), y)

    for _ in range(epochs):
        for rows in torch.randperm(len(images), device=device).split(batch):
            x, y = images[rows].contiguous(memory_format=torch.channels_last), labels[rows]
            if attacked:
                network.eval().requires_grad_(False)
                low, high = (x - EPSILON).clamp(0, 1), (x + EPSILON).clamp(0, 1)
                x = torch.clamp(x + torch.empty_like(x).uniform_(-EPSILON, EPSILON), 0, 1)
                for _ in range(STEPS):
                    x.requires_grad_(True)
                    (gradient,) = torch.autograd.grad(loss_of(x, y), x)
                    x = torch.clamp(x.detach() + STEP * gradient.sign(), low, high)
                network.requires_grad_(True)
            network.train()
            optimizer.zero_grad(set_to_none=True)
            loss_of(x, y).backward()
            optimizer.step()
            steps += 1
            done(steps)
