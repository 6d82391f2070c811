"""Several crews at once on one event loop: every line finds its own execution, also the plain ones of other functions.

Run: python examples/parallel_crews.py [LOG]       then: amsha-log ls LOG
"""

import asyncio
import sys
from random import Random

from amsha_async_log import events, get_log, open_log, reader

CREWS = 8
STEPS = ("research", "draft", "review")


async def ask_model(prompt: str, rng: Random) -> str:
    """Stand in for a model; it knows nothing of crews, yet its lines carry the crew's ids."""
    log = get_log()
    for attempt in range(1, 4):
        wait = rng.uniform(0.005, 0.02)
        await asyncio.sleep(wait)
        if rng.random() < 0.8:
            log.emit(events.LlmCallCompleted(model_name="demo-model", attempt=attempt, duration_seconds=wait))
            return f"answer to {prompt!r}"
        log.emit(events.LlmCallRetried(model_name="demo-model", attempt=attempt, error_type="Overloaded"))
    message = f"no answer to {prompt!r}"
    raise TimeoutError(message)


async def crew(number: int) -> None:
    """One execution of three steps."""
    log = get_log()
    rng = Random(number)
    async with log.execution("report_crew", inputs={"number": number}, model_name="demo-model") as run:
        for name in STEPS:
            async with run.step("task", name, agent_name=f"{name}er") as step:
                answer = await ask_model(f"{name} for report {number}", rng)
                step.record_tokens(prompt_tokens=200, completion_tokens=len(answer), cost_usd=0.001)
        run.set_outputs({"report": number})


async def main(path: str) -> None:
    async with open_log(path, level="DEBUG", sample_interval_s=1, console=False) as log:
        log.info("Starting %d crews", CREWS)
        results = await asyncio.gather(*(crew(number) for number in range(CREWS)), return_exceptions=True)
        log.info("All crews ended", failed=sum(isinstance(result, Exception) for result in results))
    executions = list(reader.executions(path))
    for execution in executions:
        print(f"{execution.execution_id}  {execution.status:9}  {execution.duration_seconds:.3f} s")
    print(f"{len(executions)} executions in {path}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "logs/parallel_crews.jsonl"))
