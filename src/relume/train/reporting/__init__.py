"""Trainings as one page: what a run folder tells, its curves, its pictures."""
