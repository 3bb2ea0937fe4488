"""Networks on MFCCs and heads on embeddings: recipes, training with Keras on JAX, inference with NumPy alone.

`architectures`, `optimization` and `head_training` build, train and save them. `numpy_inference` and `heads` apply them
without Keras, so that a worker of score starts at once and stays small.
"""
