"""Which levels each logger name lets through; as in the standard library, a name without one takes that above."""

from threading import RLock
from weakref import WeakValueDictionary

__all__ = ["Gate", "Gates"]


class Gate:
    """The level below which one logger name is silent; shared by all loggers of that name."""

    __slots__ = ("__weakref__", "explicit", "level", "name")

    def __init__(self, name: str, level: int, *, explicit: bool) -> None:
        self.name: str = name
        self.level: int = level
        self.explicit: bool = explicit


class Gates:
    """The gates of one log, by logger name. A name without a level of its own has that of the nearest name above.

    A gate without a level of its own lives as long as a logger of that name: a program may name loggers as it likes.
    """

    def __init__(self, root_name: str, level: int) -> None:
        self._root = Gate(root_name, level, explicit=True)
        self._explicit: dict[str, Gate] = {root_name: self._root}
        self._inheriting: WeakValueDictionary[str, Gate] = WeakValueDictionary()
        self._lock = RLock()

    def after_fork_in_child(self) -> None:
        """The thread that held the lock may be gone."""
        self._lock = RLock()

    def gate(self, name: str) -> Gate:
        """The gate of a logger name, made on first use."""
        gate = self._explicit.get(name) or self._inheriting.get(name)
        if gate is None:
            with self._lock:  # held for a microsecond
                gate = self._inheriting.setdefault(name, Gate(name, self._inherited(name), explicit=False))
        return gate

    def set_level(self, name: str, level: int) -> None:
        """Set one name's level, and that of every name below it that has none of its own."""
        with self._lock:
            gate = self.gate(name)
            gate.level, gate.explicit = level, True
            self._explicit[name] = gate
            for reference in self._inheriting.valuerefs():  # in one step; its items would be iterated over in Python
                below = reference()
                if below is not None and not below.explicit:
                    below.level = self._inherited(below.name)

    def _inherited(self, name: str) -> int:
        while "." in name:
            name = name.rpartition(".")[0]
            gate = self._explicit.get(name)
            if gate is not None:
                return gate.level
        return self._root.level
