"""How many keys make a batch, and keys that come back untried."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from emslice.engine.stage import Resource

KINDS: tuple[Resource, ...] = ("CPU", "GPU")
"""Kinds of worker."""


class BatchSize:
    """Keys that last about ``batch_s``: one at first, then at most twice what was tried.

    >>> size = BatchSize(batch_s=5.0, most=100)
    >>> size.n
    1
    >>> size.learn(n_keys=1, seconds=0.5)
    >>> size.n
    2
    >>> size.learn(n_keys=2, seconds=20.0)
    >>> size.n
    1
    """

    def __init__(self, batch_s: float, most: int) -> None:
        self.n = 1
        self._batch_s, self._most = batch_s, most

    def learn(self, n_keys: int, seconds: float) -> None:
        """Take a batch that ended into account."""
        fit = int(self._batch_s * n_keys / max(seconds, 1e-6))
        self.n = max(1, min(fit, self._most, max(self.n, 2 * n_keys)))


class KeySource:
    """Keys in order, lazily, those put back first; each kind of worker gets its own.

    Parameters
    ----------
    keys
        Taken one by one, no further than it takes to find one of the kind that is asked for.
    kind_of
        Kind of worker that a key needs.
    """

    def __init__(self, keys: Iterable[str], kind_of: Callable[[str], Resource]) -> None:
        self._keys, self._kind_of = iter(keys), kind_of
        self._waiting = {kind: deque[str]() for kind in KINDS}

    def take(self, n: int, kind: Resource) -> list[str]:
        """At most ``n`` keys; none if there are no more of this kind."""
        waiting = self._waiting[kind]
        while len(waiting) < n:
            key = next(self._keys, None)
            if key is None:
                break
            self._waiting[self._kind_of(key)].append(key)
        return [waiting.popleft() for _ in range(min(n, len(waiting)))]

    def put_back(self, keys: Iterable[str]) -> None:
        """Keys that were taken and not tried."""
        for key in reversed(list(keys)):
            self._waiting[self._kind_of(key)].appendleft(key)

    def kinds(self) -> list[Resource]:
        """Kinds of worker for which there is something to do."""
        found: list[Resource] = []
        for kind in KINDS:
            keys = self.take(1, kind)
            self.put_back(keys)
            if keys:
                found.append(kind)
        return found
