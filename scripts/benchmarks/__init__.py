"""What the benchmarks measure; each module imports only what stands to its left::

core · memory · jobs · peers · loaders, samplers, tfrecords, frameworks
"""
