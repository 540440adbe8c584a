"""Files of any format and layout as one table with one row per completion.

::

    folders.py      selects the files of a folder that belong to one table
    formats.py      selects the reader for a file, and refuses other files
    files.py        the unpacked bytes of a file
    json_files.py, csv_files.py, arrow_files.py, trackio_files.py    the records of a file
    layouts.py      converts a record to rows, and unfolds lists of groups and steps
    anchors.py      finds the list of a record that has one item per completion
    flatten.py      converts a row to flat cells with dotted names
    cells.py        reads a cell as a number, missing, or text
    columns.py      facts about a column
    store.py        cells on disk, read by column
    remote.py       runs of W&B and trackio as files
    history.py      refuses metrics per step; trainers.py has the settings that log rollouts
    look.py         does all of this and returns the Table of table.py
"""

from rvpo.logs.tables.columns import Column
from rvpo.logs.tables.look import look
from rvpo.logs.tables.table import Table

__all__ = ["Column", "Table", "look"]
