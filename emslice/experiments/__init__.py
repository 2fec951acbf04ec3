"""Several trainings and evaluations as one job.

Never here: how one training or one evaluation is done.
"""
