"""How is it put in? Adding a direction to the residual stream while a model runs."""

from contrans.transplants.apply import Transplant, transplant
from contrans.transplants.operations import OPERATIONS
from contrans.transplants.scope import SCOPES

__all__ = ["OPERATIONS", "SCOPES", "Transplant", "transplant"]
