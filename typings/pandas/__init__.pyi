# pandas' own annotations make every column a union of seven types; to the checker a table is opaque.
from typing import Any

def __getattr__(name: str) -> Any: ...
