"""All that only a GPU needs: how CuPy is set up (setup.py), kernels (kernels.py), recorded steps."""
