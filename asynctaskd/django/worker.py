"""What a worker of a Django project runs: `asynctaskd run --app asynctaskd.django.worker:app`.

Importing it sets Django up, where `manage.py` hasn't. The App is the one that the settings name, or a new
one, and runs Django's tasks besides where the settings give them to asynctaskd.
"""

from __future__ import annotations

import django
from django.apps import apps

from asynctaskd.app import App
from asynctaskd.django.configuration import has_our_backend, project_app
from asynctaskd.django.fresh import refresh_connections

if not apps.ready:
    django.setup()

app = project_app() or App()

if has_our_backend():
    from asynctaskd.django.running import declare_on

    declare_on(app)

refresh_connections(app)
