"""Published contrastive strategies, one file each: a method, what it says of itself, and a recipe beside it.

To add one: a file here with a class under `@strategy(...)`, its import below, `recipes/NAME.yaml`,
a test in `tests/strategies`, a page in `docs/strategies`.
"""

from overtone.strategies.cacr import CACR
from overtone.strategies.mochi import MoCHi
from overtone.strategies.convirt import ConVIRT
from overtone.strategies.radzero import RadZero
from overtone.strategies.strategy import STRATEGIES, Strategy, recipe_of
from overtone.strategies.tip import TIP

__all__ = ["CACR", "MoCHi", "STRATEGIES", "Strategy", "recipe_of"]
__all__ = ["CACR", "ConVIRT", "RadZero", "STRATEGIES", "Strategy", "TIP", "recipe_of"]
from overtone.strategies.dnabert_s import DNABERTS
from overtone.strategies.strategy import STRATEGIES, Strategy, recipe_of
from overtone.strategies.timedrl import TimeDRL

__all__ = ["CACR", "DNABERTS", "STRATEGIES", "Strategy", "TimeDRL", "recipe_of"]
