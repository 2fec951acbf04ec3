"""EM know-how, one file a step: raw to affinities, affinities to fragments and merges, to segments.

Never here: configuration files, command lines, scheduling.
"""
