"""How the weights get there: every method by name, and what a method of your own is made of."""

from csp.methods.acdc import acdc as acdc
from csp.methods.compressed_sensing import compressed_sensing as compressed_sensing
from csp.methods.dual import dual as dual
from csp.methods.exchange import granet as granet
from csp.methods.exchange import rigl as rigl
from csp.methods.exchange import set_ as set_
from csp.methods.gradual import gradual as gradual
from csp.methods.method import Clock as Clock
from csp.methods.method import Decision as Decision
from csp.methods.method import Memory as Memory
from csp.methods.method import Method as Method
from csp.methods.method import View as View
from csp.methods.method import clock_for as clock_for
from csp.methods.movement import movement as movement
from csp.methods.one_shot import one_shot as one_shot
from csp.methods.primal import decoupled as decoupled
from csp.methods.primal import ista as ista
from csp.methods.primal import metric as metric
from csp.methods.primal import trimmed as trimmed
from csp.methods.static import random as random
from csp.methods.static import static as static
from csp.methods.ste import ste as ste
from csp.methods.str_ import str_ as str_
