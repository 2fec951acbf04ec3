"""A synthetic volume with truth, a small student trained on such volumes, and the run over them.

Never here: anything a real run needs.
"""
