"""Kernels of our own for a CPU, built once by the machine's C++ compiler."""
