"""Splits into training, test and development parts, which keep the rows of a recording together.

`folds` has the protocols, `speakers` the order in which people are drawn, `development` what is set apart of a fold's
training part.
"""
