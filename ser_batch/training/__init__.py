"""Stage 2: load, split, fit, evaluate, write a model folder."""
