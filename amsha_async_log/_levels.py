"""Which levels each logger name lets through; as in the standard library, a name without one takes that above."""

__all__ = ["Gate", "Gates"]


class Gate:
    """The level below which one logger name is silent; shared by all loggers of that name."""

    __slots__ = ("explicit", "level")

    def __init__(self, level: int, *, explicit: bool) -> None:
        self.level: int = level
        self.explicit: bool = explicit


class Gates:
    """The gates of one log, by logger name. A name without a level of its own has that of the nearest name above."""

    def __init__(self, root_name: str, level: int) -> None:
        self._root = Gate(level, explicit=True)
        self._gates: dict[str, Gate] = {root_name: self._root}

    def gate(self, name: str) -> Gate:
        """The gate of a logger name, made on first use."""
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates.setdefault(name, Gate(self._inherited(name), explicit=False))
        return gate

    def set_level(self, name: str, level: int) -> None:
        """Set one name's level, and that of every name below it that has none of its own."""
        gate = self.gate(name)
        gate.level, gate.explicit = level, True
        for other, below in list(self._gates.items()):
            if not below.explicit:
                below.level = self._inherited(other)

    def _inherited(self, name: str) -> int:
        while "." in name:
            name = name.rpartition(".")[0]
            gate = self._gates.get(name)
            if gate is not None and gate.explicit:
                return gate.level
        return self._root.level
