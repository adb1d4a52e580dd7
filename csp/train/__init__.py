"""Training: from a config to a finished model file, through anything that may go wrong."""

from csp.train.config import Config as Config
from csp.train.config import ConfigError as ConfigError
from csp.train.config import read as read
