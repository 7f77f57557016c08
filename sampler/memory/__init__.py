"""Samplers of data in memory: what a batch is drawn from, and in which order.

permutation · examples · class_index · samplers
"""
