"""Reading the results of a run: pandas frames of rows, scores and maps, from committed parts.

`opening` opens the runs; `stored_rows` and `joined_rows` find and read rows; `decoding` turns
stored columns into maps; `answers`, `overlap` and `sql` compute what `Results` returns, and
`drawing` makes pictures of it. `reproduce` repeats a run's computation, to compare it with what is
stored.
"""

from pipeline.errors import UnknownNameError
from pipeline.results.decoding import LegradAccessor as LegradAccessor  # registers frame.legrad
from pipeline.results.opening import open_results
from pipeline.results.results import Results

__all__ = ["Results", "UnknownNameError", "open_results"]
