"""What a run will take, said before it begins: `overtone plan`."""

from overtone.planning.arithmetic import Given, batches, plan
from overtone.planning.figures import Figure, Figures, Plan, StagePlan

__all__ = ["Figure", "Figures", "Given", "Plan", "StagePlan", "batches", "plan"]
