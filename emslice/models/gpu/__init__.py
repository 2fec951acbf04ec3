"""Networks on a GPU."""

from emslice.models.gpu.determinism import same_kernels
from emslice.models.gpu.range import all_finite, out_of_range
from emslice.models.gpu.student import GpuStudent

__all__ = ["GpuStudent", "all_finite", "out_of_range", "same_kernels"]
