"""Holds this project's code against numbers computed with the published reference code.

``python -m ospcoop.conformance DIR`` reads a folder of golden vectors (npz files of inputs and expected outputs,
without pickles) and compares every output. Nothing about a folder is fixed here but the names of files and
arrays: model sizes, counts of images and classes, group counts and words are read off the arrays.

This package alone may import both ``ospcoop`` and ``generation``: the vectors cover both.
"""
