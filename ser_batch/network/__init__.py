"""The networks: scaled MFCCs of shape (batch, 174, 40) in, probabilities out.

`architectures`, `optimization` and `head_training` build, train and save them with Keras on JAX. `numpy_inference` and
`heads` apply saved ones with NumPy alone: a worker of score starts at once and stays small.
"""
