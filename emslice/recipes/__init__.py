"""Recipes: one training method a file, each readable on one screen.

Never here: losses, kernels, how crops are read; they are in `emslice.training`.
"""
