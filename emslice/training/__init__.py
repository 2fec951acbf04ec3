"""Training: crops, targets, losses and the loop that recipes share.

Never here: a recipe, a configuration file, a command.
"""
