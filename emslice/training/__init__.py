"""Training: labelled and unlabelled crops, their augmentation, losses, methods, the loop.

Every sample is a pure function of (seed, number). Never here: configuration files, blocks, Dask,
what a run of the segmentation does.
"""
