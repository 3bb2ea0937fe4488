"""Sounds that are not speech, made with NumPy: music, telephone signals, alarms and noise.

They stand in for what a telephone line and a room carry beside speech, so that a model learns to tell it apart without
a single recording of it (`ser_batch.training.out_of_domain`).
"""
