"""The images of a build as zips inside a folder: one ``images.zip``, or ``images-00.zip``, ... where that is too large.

A zip's members leave out its own name, as the hosts that unpack uploaded zips into folders of their name expect:
``images.zip`` holds ``n01440764/photo.png`` and unpacks to ``images/n01440764/photo.png``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from exports.contents import BuildContents
from exports.folder import ArchiveFolder
from exports.members import IMAGES_FOLDER, Member

_OVERHEAD_BYTES = 400


@dataclass
class ZipPart:
    """One zip: its name without the suffix, and its members in order."""

    name: str
    members: list[Member] = field(default_factory=list)

    def place(self, member: Member) -> str:
        """A member's path once every zip is unpacked."""
        return f"{self.name}/{member.row.key}"


def plan_parts(contents: BuildContents) -> list[ZipPart]:
    """The zips of a build, each below ``part_bytes`` by the workspace's PNGs, cut between classes where possible.

    A class is never split unless it alone is larger: then it has several zips.
    """
    groups = list(_groups(contents))
    if len(groups) == 1:
        return [ZipPart(IMAGES_FOLDER, groups[0])]
    digits = max(2, len(str(len(groups) - 1)))
    return [ZipPart(f"{IMAGES_FOLDER}-{number:0{digits}d}", group) for number, group in enumerate(groups)]


def _groups(contents: BuildContents) -> Iterator[list[Member]]:
    limit = contents.options.part_bytes
    group: list[Member] = []
    size = 0
    for of_class, of_class_size in _classes(contents):
        if group and size + of_class_size > limit:
            yield group
            group, size = [], 0
        group += of_class
        size += of_class_size
    yield group


def _classes(contents: BuildContents) -> Iterator[tuple[list[Member], int]]:
    """Members of one class and their bytes, in pieces below the limit."""
    members: list[Member] = []
    size = 0
    for member in contents.members:
        weight = member.png.stat().st_size + _OVERHEAD_BYTES if member.png.exists() else 0
        new_class = members and members[-1].row.wnid != member.row.wnid
        if new_class or (members and size + weight > contents.options.part_bytes):
            yield members, size
            members, size = [], 0
        members.append(member)
        size += weight
    if members:
        yield members, size


def write_parts(folder: ArchiveFolder, parts: list[ZipPart], contents: BuildContents) -> None:
    """Write every zip that is not there yet."""
    done = 0
    for part in parts:
        name = f"{part.name}.zip"
        if folder.has(name):
            done += len(part.members)
            continue
        with folder.zip(name) as archive:
            missing = [member for member in part.members if not archive.has(member.row.key)]
            done += len(part.members)
            for member, content in contents.images(missing, done - len(missing)):
                archive.write(member.row.key, content)
    contents.done()


def places(parts: list[ZipPart]) -> dict[str, str]:
    """Where each image (by its name in metadata, ``images/...``) lies once every zip is unpacked."""
    return {member.row.file_name: part.place(member) for part in parts for member in part.members}
