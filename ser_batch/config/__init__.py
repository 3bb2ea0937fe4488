"""Frozen settings: options of the commands, feature specs, segmentation, jobs.

Each is checked when it is made, can be written as JSON and compared. There is no global configuration.
"""
