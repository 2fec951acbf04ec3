"""Measurements, each beside a peer or a published figure in the same run."""
