"""Files of any format and layout as one table with one row per completion.

::

    files.py        which files a folder holds; unpacked bytes
    json_files.py, csv_files.py, arrow_files.py    their records
    layouts.py      a record as rows: groups and steps in lists are unfolded
    flatten.py      a row as flat cells with dotted names
    cells.py        a cell as a number, missing, or text
    columns.py      what is known of a column
    store.py        cells outside of memory, read by column
    look.py         all of it together
"""

from rvpo.logs.tables.columns import Column
from rvpo.logs.tables.look import Table, look

__all__ = ["Column", "Table", "look"]
