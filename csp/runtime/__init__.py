"""Compressed recognisers at work, in real time, on an ordinary CPU, without jax.

recognizer = csp.runtime.Recognizer("model.safetensors")
recognizer.accept(samples)
print(recognizer.result().text)
print(recognizer.finish().words)
"""

from csp.runtime.recognizer import Recognizer as Recognizer
from csp.runtime.recognizer import Result as Result
from csp.runtime.recognizer import Word as Word
