"""Triage: a small model of the verdicts so far that orders the queue and proposes what need not be looked at.

``labels`` says what people decided, ``features`` and ``shapes`` what is known of a candidate, ``agreeing`` what
its class and its look-alikes were judged, ``model`` fits and calibrates, ``training`` keeps versions, ``bands``
lets a person hand the sure ones to the model. scikit-learn is imported by ``model`` alone, when it fits.
"""
