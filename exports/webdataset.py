"""WebDataset shards: tar files whose members come in threes, ``<wnid>.<stem>``-keyed ``.png``, ``.cls``, ``.json``.

A key ends at the first dot of a file's name, so no name holds another one (and no score: a dot in a number would
cut it). ``.cls`` is the class that was removed, as an index of the full class list; as an out-of-distribution set
the images have no label.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from db.files import atomic_file
from db.models import Build
from db.progress import Progress
from db.workspace import Workspace
from exports.contents import BuildContents
from exports.folder import ArchiveFolder, export_folder
from exports.members import IMAGES_FOLDER, Member, MetadataRow
from exports.options import ExportOptions
from exports.protocols import ExportResult

_BLOCK = 512
_README = """
## As WebDataset

```python
import webdataset as wds

data = wds.WebDataset("{pattern}", shardshuffle=False).decode("pil").to_tuple("{suffix}", "cls", "json")
```
"""


class WebDatasetExporter:
    """See the module's text. A shard is cut when the next image would take it over ``part_bytes``."""

    label = "WebDataset shards (folder)"
    about = "Tar shards of image, class and facts, for streaming while training."

    def export(
        self, workspace: Workspace, build: Build, out_dir: Path, options: ExportOptions, progress: Progress
    ) -> ExportResult:
        contents = BuildContents(workspace, build, options, progress)
        name = f"imagenet-{contents.label}"

        def fill(folder: ArchiveFolder) -> None:
            count = 0
            done = 0
            for count, shard in enumerate(_shards(contents), 1):
                shard_name = f"{name}-{count - 1:06d}.tar"
                if not folder.has(shard_name):
                    _write_shard(folder.path(shard_name), shard, contents, done)
                done += len(shard)
            contents.done()
            pattern = f"{name}-{{000000..{count - 1:06d}}}.tar" if count > 1 else f"{name}-000000.tar"
            readme = _README.format(pattern=pattern, suffix=options.coding.suffix[1:])
            folder.write("README.md", contents.card + readme.encode())
            folder.write("build.json", contents.description)
            folder.write(
                "metadata.csv", contents.metadata(lambda file_name: f"{_key(file_name)}{options.coding.suffix}")
            )

        path = out_dir / f"{name}-webdataset"
        return export_folder(path, options.key(build, "webdataset"), contents.total, fill, progress)


def _in_shard(file_name: str) -> str:
    return file_name.removeprefix(f"{IMAGES_FOLDER}/")


def _key(file_name: str) -> str:
    """``n01440764/photo`` for ``images/n01440764/photo.png``."""
    return _in_shard(file_name).rpartition(".")[0]


def _shards(contents: BuildContents) -> Iterator[list[Member]]:
    """Members by shard. Sizes are those of the workspace's PNGs: known without encoding, the same everywhere."""
    shard: list[Member] = []
    size = 0
    for member in contents.members:
        weight = member.png.stat().st_size + 4 * _BLOCK if member.png.exists() else 0
        if shard and size + weight > contents.options.part_bytes:
            yield shard
            shard, size = [], 0
        shard.append(member)
        size += weight
    yield shard


def _write_shard(path: Path, shard: list[Member], contents: BuildContents, done: int) -> None:
    with atomic_file(path) as handle, tarfile.open(fileobj=handle, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member, content in contents.images(shard, done):
            key = _key(member.row.file_name)
            _add(tar, f"{key}.cls", str(member.row.class_index).encode())
            _add(tar, f"{key}.json", _json(member.row))
            _add(tar, f"{key}{contents.options.coding.suffix}", content)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    tar.addfile(info, io.BytesIO(content))


def _json(row: MetadataRow) -> bytes:
    return json.dumps(asdict(row), sort_keys=True, ensure_ascii=False).encode()
