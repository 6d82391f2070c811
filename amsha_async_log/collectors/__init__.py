"""Where samples come from: the process, the host, the container, event loops and GPUs."""

__all__: list[str] = []
