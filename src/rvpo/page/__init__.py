"""One HTML file of a report: no server, no network, nothing beside it.

::

    build.py         plain data -> the file's text
    template.html    the skeleton: headings, controls, labels
    page.css         both colour schemes
    rules.js         the rules of rvpo, compared with rvpo.advantages in a browser
    dom.js           elements, numbers and tables; text is only ever text
    charts.js        plotly, with a description and a table beside every plot
    cards.js         what to do about each neglected channel, with lines to copy
    diagnosis.js, curves.js, comparison.js, maps.js, replay.js, explorer.js, samples.js    a section each
    page.js          puts it together: theme, choice of run, refreshing while a run is going
"""

from __future__ import annotations

from rvpo.page.build import SCHEMA, render

__all__ = ["SCHEMA", "render"]
