"""Losses: differentiable distances between output and target, one idea a file.

Each is a plain function of tensors that returns a scalar of the output's type, and a config that a
training names (`base.LossConfig`): a file's `CONFIG` is found by the file.
"""
