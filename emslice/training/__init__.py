"""What networks are trained with: targets, losses, caches of frozen teachers, the loop.

Never here: configuration files, runs, stages.
"""
