"""How raw becomes affinities in a run: which network, on what lattice, on which grey values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emslice.config.schema import PredictConfig, SegmentConfig
from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi
from emslice.ledger.fingerprint import fingerprint
from emslice.models.checkpoint import Checkpoint, load_checkpoint
from emslice.models.predictor import PredictorFacts, facts_of
from emslice.models.profile import ComputeProfile, resolve_profile
from emslice.models.student import Student
from emslice.service.normalising import Measurement, choose_normalisation, measure_for
from emslice.stages import predict
from emslice.volumes import Volume
from emslice.volumes.places import local_path


@dataclass(frozen=True)
class Prediction:
    """Everything that decides affinities but raw."""

    checkpoint: Checkpoint
    profile: ComputeProfile
    network: PredictorFacts
    """What the network needs on this volume."""

    measurement: Measurement | None
    """What is measured of raw before, if it is normalised."""


def plan_prediction(config: SegmentConfig, raw: Volume, roi: Roi) -> Prediction:
    """Prediction of a box.

    Raises
    ------
    ConfigError
        No checkpoint or an unreadable one, a device that is not there, sizes that the network
        cannot take, or no target for a normalisation.
    """
    if config.checkpoint is None:
        raise ConfigError("checkpoint: no weights given. Add --checkpoint FILE.")
    checkpoint, chosen = load_checkpoint(local_path(config.checkpoint)), config.predict
    profile = resolve_profile(chosen.device, chosen.tile, chosen.threads, chosen.precision)
    z, y, x = (int(n) for n in raw.domain.shape)
    network = facts_of(
        checkpoint.network, (z, y, x), chosen.tile, chosen.crop, chosen.stride, chosen.augment
    )
    normalisation = choose_normalisation(config.raw, checkpoint)
    measurement = measure_for(normalisation, roi, raw.domain, network.lattice)
    return Prediction(checkpoint, profile, network, measurement)


def prediction_prints(
    prediction: Prediction, config: SegmentConfig, box: list[list[int]], identity: list[str]
) -> dict[str, str]:
    """Fingerprints of the stages up to affinities, in order.

    What came later than 0.1.0 is a fact only where it is used: runs begun before go on.
    """
    window, measurement = config.raw.window, prediction.measurement
    facts: dict[str, Any] = {
        "window": window, "profile": prediction.profile.as_dict(), "roi": box,
        **_network_facts(prediction, config.predict),
    }  # fmt: skip
    prints, upstream = {}, list(identity)
    if measurement is not None:
        prints["intensity"] = measurement.fingerprint(window, identity[0])
        upstream.append(prints["intensity"])
        facts |= measurement.normalisation.facts()
    prints["predict"] = fingerprint("predict", predict.VERSION, facts, *upstream)
    prints["affinities"] = fingerprint("affinities", predict.VERSION, {}, prints["predict"])
    return prints


def _network_facts(prediction: Prediction, config: PredictConfig) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    network = prediction.checkpoint.network
    if not isinstance(network, Student):
        facts["crop"] = config.crop or network.crop
        facts["stride"] = config.stride or network.stride
    if config.augment != "none":
        facts["augment"] = config.augment
    return facts
