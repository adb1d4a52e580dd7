"""What is on disk: one safetensors file, each tensor in the smallest codec that fits, every byte checked.

csp.formats.save("model.safetensors", params, values="int8")
params, config = csp.formats.load("model.safetensors")
"""

from csp.formats.errors import FormatError as FormatError
from csp.formats.files import inspect as inspect
from csp.formats.files import load as load
from csp.formats.files import open as open
from csp.formats.files import save as save
from csp.formats.files import verify as verify
