"""Source images: what is found in a folder, what is recorded of it, and how it is read again later."""

from generation.sources.importing import ensure_class_list, import_images
from generation.sources.reading import SourceChanged, open_source, read_source
from generation.sources.spec import ImportSpec, ImportSummary, SkippedFile, SourceImportError

__all__ = [
    "ImportSpec",
    "ImportSummary",
    "SkippedFile",
    "SourceChanged",
    "SourceImportError",
    "ensure_class_list",
    "import_images",
    "open_source",
    "read_source",
]
