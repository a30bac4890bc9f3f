# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The inspector's words, colours and marks, shared by terminal tables, pictures and the report."""

from dataclasses import dataclass
from typing import Literal

from boxwright.losses.assign.trace import Fate

Mark = Literal["disc", "cross", "ring", "square", "dot", "diamond", "triangle", "plus", "wedge", "bar"]


@dataclass(frozen=True, slots=True)
class Sign:
    """How a fate is named, drawn and explained. Colour and shape both tell, so that neither is needed."""

    title: str
    colour: tuple[int, int, int]  # RGB
    mark: Mark
    words: str


# Colours after Okabe and Ito, "Color Universal Design": told apart with any colour vision.
SIGNS: dict[Fate, Sign] = {
    "positive": Sign("positive", (0, 158, 115), "disc", "The candidate learns from the object."),
    "lost": Sign("lost to another", (213, 94, 0), "cross", "The object asked for it, but another object has it."),
    "outside_topk": Sign(
        "outside the top k", (86, 180, 233), "ring", "It fits, but others fit better: not among the object's best."
    ),
    "outside_second_topk": Sign(
        "dropped by the second choice", (0, 114, 178), "square", "Among the best, but cut by the second choice."
    ),
    "no_metric": Sign("score or overlap is 0", (150, 150, 150), "dot", "Nothing to rank it by."),
    "outside_box": Sign(
        "centre outside the box", (204, 121, 167), "diamond", "The candidate's centre is not inside the object's box."
    ),
    "outside_level_range": Sign(
        "level not meant for this size", (240, 228, 66), "triangle", "Its level handles larger or smaller objects."
    ),
    "ratio_over_limit": Sign(
        "prior of another shape", (230, 159, 0), "plus", "Width or height differs too much from the candidate's prior."
    ),
    "below_threshold": Sign(
        "prior overlaps too little", (140, 107, 177), "wedge", "Its prior overlaps less than this object asks for."
    ),
    "not_chosen": Sign("another query is cheaper", (166, 206, 227), "bar", "One query learns an object; not this one."),
}  # fmt: skip

TERM_WORDS: dict[str, str] = {
    "box": "boxes: how badly predicted boxes overlap the labelled ones",
    "cls": "classes: how far class scores are from what they should be, also where nothing is labelled",
    "class": "classes: how far class scores are from what they should be, also where nothing is labelled",
    "dfl": "edges: how exactly each side of a box is placed",
    "obj": "objectness: whether a candidate knows that there is an object",
    "seg": "masks: how badly predicted masks cover the labelled ones",
    "sem": "semantic map: classes of pixels, a help in training only",
    "pose": "keypoints: how far predicted points are from the labelled ones",
    "kobj": "keypoint visibility: whether a point is known to be there",
    "rle": "keypoint likelihood: whether the model knows how sure it is of a point",
    "angle": "rotation: how far the angle of a box is off",
    "bbox": "box numbers: distance of centre and sides from the labelled ones",
    "giou": "boxes: how badly predicted boxes overlap the labelled ones",
}

ROLE_WORDS: dict[str, str] = {
    "main": "the head",
    "one2many": "branch that trains many candidates for an object; only training uses it",
    "one2one": "branch that keeps one candidate for an object; predictions come from it",
    "encoder": "the encoder's first guesses",
    "decoder": "decoder layer; predictions come from the last",
    "denoise": "queries that repair shaken labels; only training uses them",
}

FINDING_WORDS: dict[str, tuple[str, str]] = {
    "not_finite": (
        "Not a number",
        "A part of the loss is infinite or undefined; training stops here. Look at its predicted box.",
    ),
    "no_positive": (
        "Nobody learns from it",
        "No candidate has this object as its target, so its label teaches nothing. Often the object is too small for "
        "the finest grid (train with larger images), or others took its candidates.",
    ),
    "contested": ("Contested", "Other objects took at least as many of its candidates as it kept: crowded or doubled."),
    "clipped_distance": (
        "Out of reach",
        "A side is farther away than the head can express at this level, so that box can never fit exactly.",
    ),
    "silent_term": ("Silent term", "A term of the loss adds nothing although there are pairs: is its gain 0?"),
    "dominant_term": ("Dominant term", "One term sends nearly all of the gradient; early in training this is usual."),
    "no_label_there": (
        "Label missing?",
        "The model is sure of an object where nothing is labelled: perhaps the label was overlooked.",
    ),
    "other_class_there": (
        "Class swapped?",
        "The model is sure of another class than the label says: perhaps the label is wrong.",
    ),
}  # fmt: skip


def term_words(name: str) -> str:
    """What an item of the loss is about: "main/box", "decoder3/giou".

    >>> term_words("main/dfl")
    'edges: how exactly each side of a box is placed'
    """
    term = name.rpartition("/")[2]
    return TERM_WORDS.get(term, f"{term}: what the model answers about each object")


def role_words(label: str) -> str:
    """What a prediction is: "main", "decoder3".

    >>> role_words("encoder")
    "the encoder's first guesses"
    """
    return ROLE_WORDS.get(label.rstrip("0123456789"), "")


def hexadecimal(colour: tuple[int, int, int]) -> str:
    """The colour as web pages and terminals write it.

    >>> hexadecimal((0, 158, 115))
    '#009e73'
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)
