"""`asynctaskd run --app examples.anchor_style.app:app`"""

import os

from asynctaskd import App, Client, FatalTaskError, TaskContext

from .tasks_gen import (
    DeleteOpaqueKeyParams,
    Executor,
    OnDeleteOpaqueKeyFailedParams,
    register,
)


class Keys:
    """Where the keys are; this one gives no key below 100 away."""

    async def delete(self, key_id: int) -> None:
        if key_id < 100:
            raise PermissionError(f"key {key_id} is locked")
        print(f"key {key_id} is deleted", flush=True)


class KeyTasks(Executor):
    def __init__(self, keys: Keys, client: Client) -> None:
        self._keys = keys
        self._client = client

    async def execute_delete_opaque_key(self, params: DeleteOpaqueKeyParams, ctx: TaskContext) -> None:
        try:
            await self._keys.delete(params.key_id)
        except PermissionError as error:
            raise FatalTaskError(str(error)) from error

    async def execute_on_delete_opaque_key_failed(
        self, params: OnDeleteOpaqueKeyFailedParams, ctx: TaskContext
    ) -> dict[str, object]:
        failed = await self._client.get_task(params.task_id)  # its record is kept until this has ended
        print(f"please look at key {failed.payload['keyID']}: {failed.last_error}", flush=True)
        return {"told_of": failed.payload["keyID"]}


def make_app(database: str) -> App:
    app = App()
    register(app, KeyTasks(Keys(), Client(database)))
    return app


app = make_app(os.environ.get("ASYNCTASKD_DATABASE_URL", "embedded"))
