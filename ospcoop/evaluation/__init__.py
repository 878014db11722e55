"""How well detectors on frozen or trained prompts tell ID from OOD images: sets, scores, intervals, tables.

:mod:`~ospcoop.evaluation.sets` says what is evaluated on, :mod:`~ospcoop.evaluation.evaluate` does it,
:mod:`~ospcoop.evaluation.tables` reads it back. docs/evaluation.md.
"""
