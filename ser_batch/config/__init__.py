"""The frozen settings that travel along the pipeline: how features are computed, how recordings are cut.

Everything that changes a value lives in one of these classes, is validated when it is made, and can be
written to JSON and compared. There is no global configuration.
"""
