"""A plugin of pytest (-p cupy_on_cpu.no_pool): CuPy without its pool of memory.

With FAKECUDA_GUARD=1 each array has memory of its own then: full of NaN, gone when the array is; and who
reads or writes beyond its end crashes.
"""

import cupy

cupy.cuda.set_allocator(None)
