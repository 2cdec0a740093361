"""What runs in the process of a device: a runner, and one backend module for each runtime.

These files are sent to the device's Python as text, which may be another environment or another machine. They import
the standard library, NumPy and their runtime, and nothing of nasmw.
"""
