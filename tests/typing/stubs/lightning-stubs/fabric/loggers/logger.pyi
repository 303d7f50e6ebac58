from collections.abc import Callable
from typing import TypeVar

_Method = TypeVar("_Method", bound=Callable[..., object])

def rank_zero_experiment(method: _Method) -> _Method: ...
