"""Rows "outside memory" that are in memory."""

from collections import defaultdict

from emslice.ops.row_tables import join_rows, row_keys


class MemoryStore:
    """Buckets as lists."""

    def __init__(self, linkage):
        self.linkage, self.buckets = linkage, defaultdict(list)

    def append(self, bucket, rows):
        self.buckets[bucket].append(rows)

    def pieces(self, bucket):
        yield from list(self.buckets[bucket])

    def keys(self, bucket):
        return row_keys(join_rows(self.buckets[bucket]), self.linkage)

    def drop(self, bucket):
        self.buckets.pop(bucket, None)
