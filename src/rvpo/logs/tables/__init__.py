"""Files of any format and layout as one table with one row per completion.

::

    folders.py      which files of a folder are parts of one table
    formats.py      which reader a file needs, and what is refused
    files.py        unpacked bytes of a file
    json_files.py, csv_files.py, arrow_files.py, trackio_files.py    records of a file
    layouts.py      a record as rows: groups and steps in lists are unfolded
    anchors.py      the list of a record that has one item per completion
    flatten.py      a row as flat cells with dotted names
    cells.py        a cell as a number, missing, or text
    columns.py      what is known of a column
    store.py        cells outside of memory, read by column
    remote.py       runs of W&B and trackio as files
    history.py      metrics per step are refused; trainers.py: with the setting that logs rollouts
    look.py         all of it together, as the Table of table.py
"""

from rvpo.logs.tables.columns import Column
from rvpo.logs.tables.look import look
from rvpo.logs.tables.table import Table

__all__ = ["Column", "Table", "look"]
