"""The networks: scaled MFCCs of shape (batch, 174, 40) in, probabilities out.

`training` builds, trains and saves them with Keras on JAX, and is the only place that imports either. `inference`
applies a saved one with NumPy alone: a worker of score is ready at once and stays small.
"""
