"""A process that predicts keeps its memory, and its results are the same."""

import subprocess
import sys

SCRIPT = """
import ctypes, resource, sys
from contextlib import ExitStack
from emslice.models.allocator import freed_memory_kept
stack = ExitStack()
if sys.argv[1] == "keep":
    assert stack.enter_context(freed_memory_kept())
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    block = libc.malloc(ctypes.c_size_t(200 << 20))
    ctypes.memset(ctypes.c_void_p(block), 1, 200 << 20)
    libc.free(ctypes.c_void_p(block))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


def faults(how):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_freed_blocks_are_used_again():
    assert faults("keep") < faults("give back") / 5


def test_afterwards_freed_memory_is_given_back():
    script = SCRIPT.replace("libc = ", "stack.close()\nlibc = ")
    done = subprocess.run(
        [sys.executable, "-c", script, "keep"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > faults("keep") * 5
