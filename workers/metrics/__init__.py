"""Hands the figures of a loop to Keras, Lightning and Prometheus, one file each. These are imported on first use."""
