"""Modules that turn a batch and its networks into losses."""
