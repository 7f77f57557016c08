"""TFRecord shards of one class each: their writing, checking and sampling.

shards · writer · check · rows · reader · samplers
"""
