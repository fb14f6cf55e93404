"""The kernels of i2sb-rt: one folder an op, in it one contract and its twins.

`reference.py` is the truth, in NumPy; `cpu.py` is C++ (AVX-512, AVX2 or plain, chosen when it runs); `gpu.py` is
Triton. Importing this package imports neither PyTorch nor Triton.
"""

from i2sb_kernels import bridge_step, dispatch, noise

__all__ = ["bridge_step", "dispatch", "noise"]
