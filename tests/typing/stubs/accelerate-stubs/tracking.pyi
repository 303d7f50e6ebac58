from collections.abc import Callable
from typing import TypeVar

_Method = TypeVar("_Method", bound=Callable[..., object])

class TensorBoardTracker: ...

def on_main_process(method: _Method) -> _Method: ...
