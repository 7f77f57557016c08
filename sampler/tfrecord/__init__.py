"""TFRecord shards (files of records) of one class each: their writing, checking and sampling.

Each module imports only those to its left:

shards · writer · check · rows · reader · samplers
"""
