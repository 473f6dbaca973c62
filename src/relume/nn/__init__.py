"""Layers and tensor operations that several models share."""
