"""Segment neurons in electron-microscopy volumes of any size."""
