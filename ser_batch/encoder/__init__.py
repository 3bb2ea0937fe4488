"""Embeddings of samples by a pretrained speech encoder, on ONNX Runtime.

An encoder is a folder: ``encoder.onnx`` with the blocks of a Whisper encoder that are read, and ``encoder.json``, the
`ser_batch.config.EncoderSpec`, which says everything that decides an embedding. Some ship with ser-batch; others are
made by `ser-batch encoder convert`.
"""
