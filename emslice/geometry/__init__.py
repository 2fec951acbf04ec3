"""Words of space: boxes, offsets, lattices. Integers only, always z, y, x.

Never here: voxels, files, networks.
"""
