"""Candidates that came in an archive: matched to their photos, kept as they are, to be reviewed here."""

from generation.imported.importing import CandidateImport, ImportRefused, import_candidates

__all__ = ["CandidateImport", "ImportRefused", "import_candidates"]
