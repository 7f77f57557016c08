"""The benchmarks. Each module imports only those to its left::

core · memory · jobs · peers · loaders, samplers, tfrecords, frameworks
"""
