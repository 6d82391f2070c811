"""A crew that logs through Amsha's logger module alone: `get_logger`, `extra`, `@log_execution`, `MetricsLogger`.

Run: python examples/amsha_crew.py
Then: amsha-log ls .Nibandha && amsha-log show EXECUTION_ID .Nibandha

The model is played by a function that answers, sends broken JSON, or times out. Three crews run side by side in
threads: one succeeds, one succeeds at the second attempt, one fails for good.
"""

import json
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from amsha_async_log import reader
from amsha_async_log.amsha import MetricsLogger, get_logger, log_execution, reset_logger

logger = get_logger("crew_forge", "DEBUG")
metrics = MetricsLogger(logger)
OUTPUT = Path("output")


class ModelTimeoutError(Exception):
    """The model did not answer in time."""


def ask(crew_name: str, attempt: int) -> str:
    """Stand in for the model: its answer depends on the crew and the attempt."""
    time.sleep(0.01)
    if crew_name == "timeout_crew":
        raise ModelTimeoutError("no answer within 30 s")
    if crew_name == "repair_crew" and attempt == 1:
        return '{"title": "half an ans'
    return json.dumps({"title": crew_name, "score": 0.9})


@log_execution(logger, "build_crew")
def build_crew(crew_name: str, override: dict[str, Any] | None) -> dict[str, Any]:
    """Choose and configure the model."""
    config = {"model": "azure/gpt-4o", "temperature": 0.2, "top_p": 1.0, "max_completion_tokens": 2048}
    if override:
        config |= override
        logger.info(
            "LLM configuration override applied",
            extra={
                "crew_name": crew_name,
                "override_model": config["model"],
                "output_alias": "short",
                "parameters_changed": list(override),
            },
        )
    metrics.log_llm_config("gpt-4o", config)
    return config


def save_and_validate(text: str, execution_id: str, crew_name: str, attempt: int) -> dict[str, Any]:
    """Write the answer to a file, read it back as JSON. Raises ValueError when it is none."""
    path = OUTPUT / f"{crew_name}.json"
    path.write_text(text)
    about = {"execution_id": execution_id, "attempt": attempt, "file_size_bytes": os.path.getsize(path)}
    metrics.log_file_operation("save", str(path), "success", **about)
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        metrics.log_file_operation("validate", str(path), "failed", validation_status="failed", **about)
        raise
    metrics.log_file_operation("validate", str(path), "success", validation_status="success", **about)
    return answer


def run_crew(crew_name: str, max_retries: int = 2) -> None:
    """One execution, with as many attempts as it may have."""
    execution_id, began, tokens = str(uuid.uuid4()), time.monotonic(), 0
    context = {"execution_id": execution_id, "crew_name": crew_name, "model_name": "gpt-4o"}
    logger.info("Crew execution queued", extra={**context, "state_to": "PENDING"})
    build_crew(crew_name, {"temperature": 0.0} if crew_name == "repair_crew" else None)
    for attempt in range(1, max_retries + 1):
        numbered = {**context, "attempt": attempt, "max_retries": max_retries}
        inputs = {"topic": "llamas", "crew": crew_name}
        logger.info("Crew execution initiated", extra={**numbered, "inputs": inputs, "state_to": "RUNNING"})
        try:
            tokens += 700
            answer = save_and_validate(ask(crew_name, attempt), execution_id, crew_name, attempt)
        except (ValueError, ModelTimeoutError) as error:
            about = {**numbered, "error_type": type(error).__name__, "error_message": str(error)}
            logger.error("Crew execution failed", extra={**about, "status": "FAILED"}, exc_info=True)  # noqa: G201
            if attempt < max_retries:
                logger.warning("Crew execution retried", extra={**context, "recovery_action": "ask again"})
        else:
            logger.info("Crew execution completed", extra={**numbered, "outputs": answer, "status": "COMPLETED"})
            break
    general = {"prompt_tokens": tokens - 200, "completion_tokens": 200, "total_tokens": tokens}
    metrics.log_execution_metrics(crew_name, execution_id, {"general": general}, time.monotonic() - began)


def main() -> None:
    """Run the crews, then tell what the log says of them."""
    OUTPUT.mkdir(exist_ok=True)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(run_crew, ["report_crew", "repair_crew", "timeout_crew"]))
    reset_logger()  # or leave it to the end of the program
    executions = reader.executions(".Nibandha")
    for execution in executions:
        print(f"{execution.execution_id}  {execution.crew_name}  {execution.status}  {execution.total_tokens} tokens")
    print(f"{len(executions)} executions in .Nibandha")


if __name__ == "__main__":
    main()
