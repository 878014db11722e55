"""The commands of launch.py by area: each module's ``commands`` is added to the one application of app/cli.py.

Everything heavy is imported inside the functions, so that --help is instant.
"""
