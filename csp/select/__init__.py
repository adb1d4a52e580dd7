"""Which k units are the largest? Exact order statistics without sorting, on one device or sharded.

Numbers become integers of the same order (`keys`), and the integer that k units reach is searched (`search`) by
counting how many reach each of seven places in one pass (`counting`). A guess decides how many passes that takes, never
the answer. On a mesh only counts and thresholds cross devices.
"""

from csp.select.counting import fenced as fenced
from csp.select.counting import largest as largest
from csp.select.counting import sums as sums
from csp.select.cuts import Cut as Cut
from csp.select.cuts import above as above
from csp.select.cuts import count_at_least as count_at_least
from csp.select.cuts import cut as cut
from csp.select.cuts import cut_jointly as cut_jointly
from csp.select.cuts import keep_largest as keep_largest
from csp.select.cuts import kth_largest as kth_largest
from csp.select.cuts import larger as larger
