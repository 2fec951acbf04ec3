"""Running a stage: keys out to workers, outcomes back, every attempt recorded.

Never here: neurons, voxels, geometry of a stage, YAML, how a queueing system starts workers.
"""
