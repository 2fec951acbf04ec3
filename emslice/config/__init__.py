"""What a user may choose: parsed and checked once, plain values inside.

Never here: defaults that depend on the machine, file formats of volumes.
"""
