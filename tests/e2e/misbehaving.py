"""Fragments as they are, in a worker that something happens to at one block."""

import os
import signal
from contextlib import contextmanager
from pathlib import Path

from emslice.stages.fragments import FragmentBlocks

BAD = "1_1_1"


class Killing(FragmentBlocks):
    """Every worker that begins with the block dies, as if the kernel took it for its memory."""

    @contextmanager
    def open(self):
        with super().open() as process:

            def attempt(key):
                if key == BAD:
                    os.kill(os.getpid(), signal.SIGKILL)
                return process(key)

            yield attempt


class Freezing(FragmentBlocks):
    """The first worker that begins with the block stands still, as on a host that hangs."""

    @contextmanager
    def open(self):
        with super().open() as process:

            def attempt(key):
                mark = Path(self.folder) / "frozen"
                if key == BAD and not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGSTOP)
                return process(key)

            yield attempt
