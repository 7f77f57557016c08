"""Samplers of TFRecord shards, one class each: what writes, checks and reads them.

shards · writer · check · rows · reader · samplers
"""
