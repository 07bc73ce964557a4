"""The application's tasks, as `asynctaskd run --app PACKAGE.app:app` finds them."""

from asynctaskd import App

from .handlers import Console, Mailer, Tasks
from .tasks_gen import register


def make_app(mailer: Mailer) -> App:
    """An App whose tasks send emails that way."""
    app = App()
    register(app, Tasks(mailer))
    return app


app = make_app(Console())
