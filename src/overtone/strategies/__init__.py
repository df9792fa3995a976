"""Published contrastive strategies, one file each: a method, what it says of itself, and a recipe beside it.

To add one: a file here with a class under `@strategy(...)`, its import below, `recipes/NAME.yaml`,
a test in `tests/strategies`, a page in `docs/strategies`.
"""

from overtone.strategies.cacr import CACR
from overtone.strategies.circuitgcl import CircuitGCL
from overtone.strategies.convirt import ConVIRT
from overtone.strategies.dnabert_s import DNABERTS
from overtone.strategies.ins import INS
from overtone.strategies.mochi import MoCHi
from overtone.strategies.radzero import RadZero
from overtone.strategies.sepclr import SepCLR
from overtone.strategies.strategy import STRATEGIES, Strategy, recipe_of
from overtone.strategies.timedrl import TimeDRL
from overtone.strategies.tip import TIP

__all__ = [
    "CACR",
    "CircuitGCL",
    "ConVIRT",
    "DNABERTS",
    "INS",
    "MoCHi",
    "RadZero",
    "STRATEGIES",
    "SepCLR",
    "Strategy",
    "TIP",
    "TimeDRL",
    "recipe_of",
]
