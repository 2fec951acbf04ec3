"""What a pair of sections moves through memory, counted operator by operator; nothing is timed.

    python -m benchmarks.traffic [--json] [--side 512]

The student on a GPU as PyTorch's operators run it, and with our kernels: how many kernels a pair
is, and how many bytes a pixel they read and write, if each reads its inputs once. On the memory of
a device that is a bound: rate times bytes a pixel. Needs no GPU and no data.
"""

from __future__ import annotations

import json
from typing import Any

import click
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from emslice.models.gpu.operators import Answer, Heads, Operators, PlainOperators, Shares
from emslice.models.gpu.student import GpuStudent
from emslice.models.student import Student, Window

FREE = ("view", "as_strided", "slice", "select", "unsqueeze", "transpose", "detach", "empty",
        "narrow", "expand", "alias", "split", "_unsafe_view", "permute", "t", "lift_fresh",
        "_local_scalar_dense", "resolve_conj", "swapaxes")  # fmt: skip
"""Operators that move nothing."""


class Counter(TorchDispatchMode):
    """Counts kernels and bytes of what runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in FREE:
            in_place = func.overloadpacket.__name__.endswith("_")
            self.add(*_tensors((args, kwargs)), *(_tensors(found) if not in_place else ()))
            if in_place and func.overloadpacket.__name__ != "copy_":
                self.add(args[0], kernels=0)  # read and written
        return found

    def add(self, *tensors: Tensor, kernels: int = 1) -> None:
        """One kernel that touches these once."""
        self.kernels += kernels
        self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class CountedKernels(PlainOperators):
    """Our kernels as far as they are counted: each reads and writes everything once."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def convolve(
        self, features: Tensor, weight: Tensor, bias: Tensor, out: Tensor | None = None
    ) -> Tensor:
        found = torch.nn.functional.conv2d(features, weight, padding=1)
        out = found if out is None else out
        self._counter.add(found, out)
        return out

    def join(self, skip: Tensor, deep: Tensor, shares: Shares) -> Tensor:
        _, beside, height, width = skip.shape
        found = torch.empty(
            (1, beside + deep.shape[1], height, width),
            dtype=skip.dtype,
            memory_format=torch.channels_last,
        )
        self._counter.add(skip, deep, found)
        return found

    def finish(self, before: Tensor, here: Tensor, heads: Heads, answer: Answer) -> None:
        for features, head in zip((before, here), heads, strict=True):
            torch.nn.functional.conv2d(features, head.weight, padding=1)
        self._counter.add(before, here, answer.codes)


def count_traffic(network: Student, dtype: torch.dtype, side: int, kernels: bool) -> dict[str, Any]:
    """Kernels of a pair whose earlier stem is known, and bytes a pixel."""
    counter = Counter()
    operators: Operators = CountedKernels(counter) if kernels else PlainOperators()
    student = GpuStudent(network, dtype, "cpu", operators)
    section, area = torch.zeros((side, side), dtype=torch.uint8), (slice(None), slice(None))
    with (
        torch.inference_mode(),
        student.lanes.lane((side, side), Window((0, 0), (side, side)), area) as lane,
    ):
        lane.begin(section)
        counter.kernels = counter.bytes = 0
        with counter:
            lane.advance(section)
    return {"kernels": counter.kernels, "bytes_per_pixel": counter.bytes / side**2}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on one line.")
@click.option("--side", default=512, show_default=True, help="Of a tile, voxels.")
def main(as_json: bool, side: int) -> None:
    """Count what a pair of sections moves on a GPU."""
    network, found = Student().eval(), {}
    for precision in ("float32", "float16"):
        for name, kernels in (("plain", False), ("kernels", True)):
            dtype = getattr(torch, precision)
            found[f"{name}_{precision}"] = count_traffic(network, dtype, side, kernels)
    print(json.dumps(found, indent=None if as_json else 2))


if __name__ == "__main__":
    main()
