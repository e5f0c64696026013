"""Bare array code where the time goes. Nothing here knows a Tensor."""
