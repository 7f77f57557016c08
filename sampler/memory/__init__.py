"""Samplers of data in memory. Each module imports only those to its left:

permutation · ragged · examples · class_index · memory_sampler · samplers
"""
