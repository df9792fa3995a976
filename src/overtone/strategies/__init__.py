"""Published contrastive strategies, one file each: a method, what it says of itself, and a recipe beside it.

To add one: a file here with a class under `@strategy(...)`, its import below, `recipes/NAME.yaml`,
a test in `tests/strategies`, a page in `docs/strategies`.
"""

from overtone.strategies.cacr import CACR
from overtone.strategies.circuitgcl import CircuitGCL
from overtone.strategies.ins import INS
from overtone.strategies.sepclr import SepCLR
from overtone.strategies.strategy import STRATEGIES, Strategy, recipe_of

__all__ = ["CACR", "INS", "STRATEGIES", "CircuitGCL", "SepCLR", "Strategy", "recipe_of"]
