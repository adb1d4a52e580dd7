"""Models of speech in flax.nnx: matrices are two-dimensional, and `apply` is a function of plain parameters."""

from csp.models.functional import apply as apply
from csp.models.functional import grams as grams
from csp.models.recogniser import ModelConfig as ModelConfig
from csp.models.recogniser import Recogniser as Recogniser
from csp.models.recogniser import create as create
