"""Rows "outside memory" that are in memory."""

from collections import defaultdict

import numpy as np

from emslice.ops.row_tables import join_rows, row_keys, take_rows


class MemoryStore:
    """Buckets as lists."""

    def __init__(self, linkage):
        self.linkage, self.buckets = linkage, defaultdict(list)

    def append(self, rows, buckets, begin):
        for bucket, first, end in zip(buckets, begin, [*begin[1:], len(rows)], strict=True):
            self.buckets[bucket].append(take_rows(rows, np.arange(first, end)))

    def load(self, bucket):
        return join_rows(self.buckets[bucket])

    def pieces(self, bucket):
        yield from list(self.buckets[bucket])

    def keys(self, bucket):
        return row_keys(self.load(bucket), self.linkage)

    def drop(self, bucket):
        self.buckets.pop(bucket, None)


def assert_equal(found, expected):
    """Raise unless two tables have equal columns of equal dtypes."""
    for name in expected.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
        assert getattr(found, name).dtype == getattr(expected, name).dtype
