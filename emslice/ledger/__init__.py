"""What was done, remembered on disk: identities, records, atomic files.

Never here: voxels, networks, scheduling.
"""
