"""Tools for testing your own ops.

strategies.py: Hypothesis strategies for shapes, axes, memory layouts, indices, convolution settings and
values; importing it needs Hypothesis (`pip install hypothesis`).
strict.py: a backend that behaves like a device on a machine without one.
The gradient checker, minigan.gradcheck, needs neither.
"""
