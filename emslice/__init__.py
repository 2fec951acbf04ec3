"""Segment neurons in electron-microscopy volumes of any size.

    affinities = emslice.predict_affinities(raw, "student.ckpt")
    neurons = emslice.segment_affinities(affinities, threshold=0.5)
    print(emslice.evaluate(neurons, truth))

Whole volumes on storage are segmented with the ``emslice`` command.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["evaluate", "predict_affinities", "segment_affinities"]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from emslice.service.arrays import evaluate, predict_affinities, segment_affinities


def __getattr__(name: str) -> Any:
    # On first use: `import emslice` costs no torch and no compiler.
    if name in __all__:
        from emslice.service import arrays

        return getattr(arrays, name)
    raise AttributeError(f"module 'emslice' has no attribute {name!r}")
