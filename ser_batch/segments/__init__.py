"""Where segments begin and end; a recording to segments with their features."""
