"""What a detector is asked for. Apart from the detector, whose library takes seconds to load."""

from __future__ import annotations


def prompt_for(class_name: str) -> str:
    """The caption of one class: its whole name in lower case and a full stop, ``"great white shark ."``.

    A full stop or question mark inside a name ("St. Bernard") becomes a blank, an underscore too: to the model
    each of the two ends a phrase, and it would look for "st" and for "bernard". ValueError for an empty name.
    """
    words = class_name.lower().translate(str.maketrans("._?", "   ")).split()
    if not words:
        raise ValueError(f"A class name with letters is needed for a prompt, got {class_name!r}.")
    return " ".join([*words, "."])
