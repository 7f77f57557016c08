"""What scripts/benchmark is made of; each module imports only what stands to its left::

jobs · peers · memory · measure · rounds · targets · report
"""
