"""Networks, their weights on disk and the way they are run on tiles.

Never here: volumes, blocks, neurons.
"""
