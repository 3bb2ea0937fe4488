"""The model folder: schema, load, save, predict, export."""
