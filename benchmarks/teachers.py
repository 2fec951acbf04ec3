"""The student against the 3D teachers, per output voxel: in our engine, and plain against plain.

Each teacher overlaps its windows as published (CAD, EM-SliceCrafter): superhuman 1,690 windows for
the 100 x 1024 x 1024 voxels of AC3 and 450 for the 25 x 1250 x 1250 of a CREMI test set, MALA none.
The student sees whole sections, padded to multiples of 16. Weights of teachers are not published:
they are random, which changes no operation. Called by ``benchmarks.predict``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi
from emslice.geometry.windows import WindowLattice
from emslice.models.mala import Mala
from emslice.models.networks import VolumeNetwork
from emslice.models.profile import resolve_profile
from emslice.models.superhuman import Superhuman
from emslice.models.windows import WindowPredictor, head_affinity
from emslice.ops.blend import Blend, gaussian_weights

STUDENT_MAC = 70_432
"""Multiplications a voxel (reference, section 1.3)."""

Run = Callable[[], Any]
Clock = Callable[[Run], float]


@dataclass(frozen=True)
class Match:
    """A teacher on a data set."""

    teacher: str
    windows_per_voxel: float
    side: int
    """Of the section that the student sees, voxels."""

    length: int
    """The same, without padding."""

    mac: float
    """Of the teacher, an output voxel."""

    @property
    def mac_ratio(self) -> float:
        """How many times as many multiplications the teacher takes."""
        return self.mac / STUDENT_MAC


def _superhuman(windows: int, sections: int, length: int, side: int) -> Match:
    per_voxel = windows / (sections * length**2)
    return Match("superhuman", per_voxel, side, length, 188_690 * 18 * 160 * 160 * per_voxel)


MATCHES = {
    "superhuman_ac3": _superhuman(1690, 100, 1024, 1024),
    "superhuman_cremi": _superhuman(450, 25, 1250, 1264),
    "mala": Match("mala", 1 / (25 * 56 * 56), 1024, 1024, 2_636_000),
}

VOXELS = {network.name: math.prod(network.crop) for network in (Superhuman, Mala)}
"""That each teacher sees at once."""


@dataclass
class Teachers:
    """What runs one window of each teacher, and the seconds of each."""

    plain: dict[str, Run] = field(default_factory=dict)
    ours: dict[str, dict[str, Run]] = field(default_factory=dict)
    """By precision."""

    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """By precision (or ``plain``) and network; of the student, by the side of its section."""

    def note(self, kind: str, name: str, seconds: float) -> None:
        """Remember a turn."""
        self.seconds.setdefault((kind, name), []).append(seconds)


def prepare(device: str, precisions: list[str]) -> Teachers:
    """Networks with random weights and one window of noise for each."""
    torch.manual_seed(0)
    teachers = Teachers(ours={precision: {} for precision in precisions})
    for name, network in (("superhuman", Superhuman().eval()), ("mala", Mala().eval())):
        volume = np.random.default_rng(0).integers(1, 256, network.crop).astype(np.uint8)
        teachers.plain[name] = _plain(network, volume, device)
        for precision in precisions:
            teachers.ours[precision][name] = _ours(network, volume, device, precision)
    return teachers


def _plain(network: VolumeNetwork, volume: NDArray[np.uint8], device: str) -> Run:
    """Eager PyTorch: float32, channels first; affinities, blending and codes included."""
    lattice, answer = _one_window(network)
    moved = network.to(device)
    weights = gaussian_weights(lattice.output) if network.blended else np.ones(lattice.output)

    @torch.inference_mode()
    def run() -> None:
        batch = torch.from_numpy(volume).to(device)[None, None].float() / 255
        affinity = head_affinity(moved(batch)[0], network.head).cpu().numpy()
        blend = Blend(answer, weights.astype(np.float32), lattice.stride[0], 0)
        blend.add(affinity, 0, 0)
        blend.end_row(last=True)

    return run


def _ours(network: VolumeNetwork, volume: NDArray[np.uint8], device: str, precision: str) -> Run:
    lattice, answer = _one_window(network)
    predictor = WindowPredictor(network, lattice, resolve_profile(device, 1024, 1, precision))
    imaged = volume != 0
    return lambda: predictor.codes(volume, imaged, (0, 0, 0), answer)


def _one_window(network: VolumeNetwork) -> tuple[WindowLattice, Roi]:
    """A domain that takes a single window, and all of it as the answer."""
    output = [c - 2 * m for c, m in zip(network.crop, network.margin, strict=True)]
    beyond = [2 * -(-s // 8) if network.blended else 0 for s in network.stride]
    z, y, x = (n - b for n, b in zip(output, beyond, strict=True))
    lattice = WindowLattice((z, y, x), network.crop, network.stride, network.margin)
    assert all(axis.n == 1 for axis in lattice.axes)
    return lattice, Roi((0, 0, 0), (z, y, x))


def time_plain(teachers: Teachers, students: dict[int, Run], rounds: int, clock: Clock) -> None:
    """Take turns of the plain networks, before the allocator is changed."""
    for _ in range(rounds):
        for side, run in students.items():
            teachers.note("plain", str(side), clock(run))
        for name, run in teachers.plain.items():
            teachers.note("plain", name, clock(run))


def time_ours(
    teachers: Teachers,
    students: dict[int, dict[str, Run]],
    sections: int,
    rounds: int,
    clock: Clock,
) -> None:
    """Take turns of our networks, ``sections`` of the student against a window of each teacher."""
    for precision, runs in teachers.ours.items():
        for warm in (*runs.values(), *(of[precision] for of in students.values())):
            warm()
        for _ in range(rounds):
            for side, of in students.items():
                teachers.note(precision, str(side), clock(of[precision]) / sections)
            for name, run in runs.items():
                teachers.note(precision, name, clock(run))


def report(teachers: Teachers) -> dict[str, Any]:
    """For plain and each precision: how many times as long each teacher takes."""
    found: dict[str, Any] = {}
    for kind in dict.fromkeys(kind for kind, _ in teachers.seconds):
        for name, match in MATCHES.items():
            window = statistics.median(teachers.seconds[kind, match.teacher])
            section = statistics.median(teachers.seconds[kind, str(match.side)])
            teacher, student = window * match.windows_per_voxel, section / match.length**2
            found.setdefault(kind, {})[name] = {
                "ratio": teacher / student,
                "mac_ratio": match.mac_ratio,
                "share_of_mac_ratio": teacher / student / match.mac_ratio,
                "teacher_us_per_voxel": 1e6 * teacher,
                "student_us_per_voxel": 1e6 * student,
                "seconds_a_window": window,
            }
    return found


def smallest_share(found: dict[str, Any]) -> float:
    """The smallest part of a MAC ratio that is reached in our engine."""
    return min(
        match["share_of_mac_ratio"]
        for kind, matches in found.items()
        if kind != "plain"
        for match in matches.values()
    )
