"""From options to a sampler: which sources a log has, by what it was told and by what this process owns."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from ._config import LogConfig
from ._gpus import HUNG_S, GpuLooks
from ._sampler import Gauges, MetricsSampler, Push
from ._watch import ExecutionWatch
from .collectors._base import Collector, GpuReading, GpuSource
from .collectors._gpu_process import HelperSource
from .collectors._gpu_thread import GpuThread
from .collectors.cgroup import CgroupCollector
from .collectors.host import HostCollector
from .collectors.nvml import NvmlSource

__all__ = ["make_sampler"]

_HELPER_HUNG_S: Final = 35.0
"""A helper process has time-outs of its own (30 s for its first look); only beyond them does the thread itself hang."""


def make_sampler(
    config: LogConfig,
    push: Push,
    nudge: Callable[[], None],
    is_calm: Callable[[], bool],
    watch: ExecutionWatch,
    *,
    owner: bool,
    own_threads: set[int],
    gauges: Gauges,
) -> MetricsSampler:
    """A sampler for the loop that runs now.

    `owner`: this process writes the log's own path, so that it samples the machine; the others, only themselves.
    """
    gpu_interval_s = config.sample_interval_s if config.gpu_interval_s is None else config.gpu_interval_s
    collectors: list[Collector] = [HostCollector(), CgroupCollector()] if owner else []
    loop = asyncio.get_running_loop()
    gpus: GpuLooks | None = None

    def deliver(reading: GpuReading) -> None:
        loop.call_soon_threadsafe(sampler.on_gpus, reading)

    if owner and gpu_interval_s:
        make_source: Callable[[], GpuSource] = HelperSource if config.gpu_process else NvmlSource
        gpus = GpuLooks(
            GpuThread(make_source, deliver, own_threads),
            time.monotonic_ns(),
            interval_s=gpu_interval_s,
            hung_s=_HELPER_HUNG_S if config.gpu_process else HUNG_S,
        )
    sampler = MetricsSampler(
        push,
        nudge,
        is_calm,
        watch,
        interval_s=config.sample_interval_s,
        collectors=collectors,
        gpus=gpus,
        gpu_unknown=None if gpus else "not_owner" if gpu_interval_s else "off",
        loop_stall_s=config.loop_stall_s,
        gauges=gauges,
        by_task=config.cpu_by_task,
    )
    return sampler
