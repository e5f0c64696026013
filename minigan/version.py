"""The version of minigan. It stands alone, so that a run can write it down and the build can read it."""

__version__ = "0.1.0"
