"""Families whose devices have units: a controller, a place on it in a few numbers, and a disk's letters tell both.

What such a family adds is a table of models and a handful of rules; how controllers get indexes, which of them
come along, who sits where and what QEMU is told is the same for all.

    models    a model's row, and the numbers of a unit
    family    the rules that a family may have of its own, what its elements say, and what QEMU is seen to have
    resolving controllers and devices of one domain on their way to their places
    steps     what QEMU is told of them
"""

from translator.units.family import UnitFamily
from translator.units.models import UnitModel, UnitSlot, by_letters, dotted, drives, undotted
from translator.units.resolving import UnitPart
from translator.units.steps import UnitSteps

__all__ = [
    "UnitFamily",
    "UnitModel",
    "UnitPart",
    "UnitSlot",
    "UnitSteps",
    "by_letters",
    "dotted",
    "drives",
    "undotted",
]
