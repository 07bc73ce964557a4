"""How the tasks of tasks.yaml are carried out, and what is needed for that."""

from typing import Protocol

from asynctaskd import FatalTaskError, TaskContext

from .tasks_gen import Executor, SendEmailParams


class Mailer(Protocol):
    """What sends emails; tests have one of their own."""

    async def send(self, to: str, subject: str, text: str) -> None: ...


class Console:
    """A mailer that prints, until there is a real one."""

    async def send(self, to: str, subject: str, text: str) -> None:
        print(f"To: {to}\nSubject: {subject}\n\n{text}", flush=True)


class Tasks(Executor):
    """Carries out the tasks. One may run twice, after a crash for instance: handlers must be idempotent."""

    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer

    async def execute_send_email(self, params: SendEmailParams, ctx: TaskContext) -> dict[str, str]:
        if "@" not in params.to:
            raise FatalTaskError(f"{params.to!r} is no address")  # another attempt won't help
        # Whatever else is raised leads to another attempt, as retryPolicy says.
        await self._mailer.send(params.to, params.subject, params.text)
        return {"sent_to": params.to}
