"""`asynctaskd run --app examples.functions.app:app`"""

from asynctaskd import App, Client
from asynctaskd.testing import InMemoryClient

from .pictures import publish, resize

app = App()
app.register(resize, retry="1m", timeout="5m")  # what can't be a task is refused here
app.register(publish)


async def upload(client: Client | InMemoryClient, album: str, paths: list[str]) -> int:
    """Have pictures made small side by side, and then the album published; returns that task's id."""
    small = await client.enqueue_many([app[resize].request(path, width=400) for path in paths])
    return await client.enqueue(publish, {"album": album, "pictures": paths}, depends_on=small)
