"""What type checkers see of the functions for Python; mypy reads this file, nothing runs it.

An ignored error that is none would be one: so the last line holds that wrong types are found.
"""

from ser_batch import featurize, score, train

table = featurize("audio", jobs=1).features.collect()
width: int = table.width
calls = score("calls", model=train("features", epochs=3).path).calls
height: int = calls.height
featurize("audio", jobs="all")  # type: ignore[arg-type]  # wrong on purpose: a number is wanted
