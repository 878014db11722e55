"""What figures show, as numbers, and as SVG text for those who have no browser.

:mod:`~ospcoop.figures.scores` makes histograms, ROC and reliability of an evaluation's scores,
:mod:`~ospcoop.figures.shortcut_map` says which patches of a background push it towards a class. The pages draw the
same numbers in JavaScript; :mod:`~ospcoop.figures.svg` writes them as files. docs/evaluation.md.
"""
