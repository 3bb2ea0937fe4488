"""From a folder to a manifest: the walk, what file names say, what a labels file adds.

Nothing here opens a recording; a name, a size and a time are all that is looked at.
"""
