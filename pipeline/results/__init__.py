"""Reading what a run found: pandas frames of scores and maps, from committed parts.

The way of a question: `opening` finds the runs, `where` and `stored` the rows, `decode` makes maps
of columns, `frames`, `maps`, `overlap` and `sql` answer, `show` and `pictures` draw. `joined` makes
one table of several runs and frames, `accessor` gives ``frame.legrad`` to plain pandas.
"""

from pipeline.results import accessor as accessor
from pipeline.results.errors import UnknownNameError
from pipeline.results.opening import open_results
from pipeline.results.results import Results

__all__ = ["Results", "UnknownNameError", "open_results"]
