"""The report as one HTML file. It needs no server, no network and no other files.

::

    build.py         turns plain data into the text of the file
    template.html    the skeleton: headings, controls, labels
    page.css         both colour schemes
    rules.js         the rules of rvpo; tests compare them with rvpo.advantages in a browser
    dom.js           elements, numbers and tables; texts never become markup
    charts.js        plotly, with a description and a table for every plot
    cards.js         what to do about each neglected channel, with lines to copy
    diagnosis.js, curves.js, comparison.js, maps.js, replay.js, explorer.js, samples.js    one section each
    page.js          connects the parts: theme, choice of run, refreshing while a run trains
"""

from __future__ import annotations

from rvpo.page.build import SCHEMA, render

__all__ = ["SCHEMA", "render"]
