"""Every error emslice raises on purpose.

A message says what was asked, what was found and what to do, with the numbers and the
configuration key. The command line prints it on one line: exit code 2 for `ConfigError` and its
kin (nothing was started, nothing was written), 1 for everything else (a run failed).
"""


class EmsliceError(Exception):
    """Base class. ``transient`` tells a runner whether trying again can help."""

    transient = False
    exit_code = 1


class ConfigError(EmsliceError, ValueError):
    """The user asked for something that cannot be done."""

    exit_code = 2


class GeometryError(ConfigError):
    """A box, grid or offset that cannot mean anything."""


class VolumeError(ConfigError):
    """A volume that is missing, unreadable or of the wrong kind."""


class AlignmentError(ConfigError):
    """Two blocks would write into one chunk."""


class CheckpointError(ConfigError):
    """Weights that do not fit the network, or a file that holds none."""


class RunExistsError(ConfigError, FileExistsError):
    """The run folder is already taken."""


class PrecisionError(EmsliceError):
    """Numbers that leave the range of the precision they are computed in."""


class UnfitWorkerError(EmsliceError):
    """A worker that would compute something else than the run asks for."""


class StorageError(EmsliceError, OSError):
    """A read or write failed; the store may recover."""

    transient = True
