"""`python -m amsha_async_log`, and the entry point of the command `amsha-log`."""

import sys
from typing import Final

__all__ = ["main"]

_OF_THE_EXTRA: Final = ("typer", "rich", "click", "shellingham")


def main() -> int:
    """Run the command line and return its exit code; 2 when the `cli` extra is not installed."""
    try:
        from .cli import run  # an optional dependency
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _OF_THE_EXTRA:
            raise
        sys.stderr.write(f'amsha-log: needs {package}: pip install "amsha_async_log[cli]"\n')
        return 2
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
