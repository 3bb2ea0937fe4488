"""Who is held out, and who is set apart for development: a recording's rows always stay together.

`folds` has the protocols, `speakers` the order in which people are drawn, `development` what is set apart of a fold's
training part.
"""
