"""Match by structure: how one implementation's state dict maps into another's, from (key, shape, dtype) alone.

Names differ between implementations; what the tensors are does not.  Tensors are gathered into layers (`layers`),
projections that one side stacks are joined on the other (`fusing`), and layers with the same signature form groups
that can only belong together as a whole.  Evidence then splits groups until each holds one pair (`solve`): what lies
beside what, numbered families, words.  Evidence that is only the order of keys, or likeness of names, is no evidence:
where nothing else is left, the answer is a question, asked once for all places alike.

Everything is a function of plain data, and the same to the byte whatever PYTHONHASHSEED and the order of keys are.
"""

from __future__ import annotations

from loadstone.matching.structure.engine import match
from loadstone.matching.structure.items import GRADES, Assignment, Item, Match, Question, Taken, Unmatched
from loadstone.matching.structure.rules import Rule

__all__ = ["GRADES", "Assignment", "Item", "Match", "Question", "Rule", "Taken", "Unmatched", "match"]
