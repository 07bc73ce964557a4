"""Functions that know nothing of tasks."""


def resize(path: str, width: int = 800) -> str:
    return path.replace(".", f"-{width}.")


async def publish(album: str, pictures: list[str]) -> str:
    return f"{album}: {', '.join(pictures)}"
