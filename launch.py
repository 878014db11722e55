"""The only entry: `uv run launch.py` serves a workspace; `uv run launch.py --help` lists the rest."""

from app.cli import main

if __name__ == "__main__":
    main()
