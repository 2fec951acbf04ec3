"""How many keys make a batch, and keys that come back untried."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice


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
    """Keys in order, lazily; those put back come first."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = iter(keys)
        self._back: deque[str] = deque()

    def take(self, n: int) -> list[str]:
        """At most ``n`` keys; none if there are no more."""
        taken = [self._back.popleft() for _ in range(min(n, len(self._back)))]
        return taken + list(islice(self._keys, n - len(taken)))

    def put_back(self, keys: Iterable[str]) -> None:
        """Keys that were taken and not tried."""
        self._back.extend(keys)
