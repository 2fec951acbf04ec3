"""Training: crops, targets, losses, frozen teachers and the loop that recipes share.

Never here: a recipe, a configuration file, a command, stages.
"""
