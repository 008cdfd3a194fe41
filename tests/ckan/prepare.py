"""Run once by CKAN's own Python, with the path of its configuration: makes the tables, the two users and the organization.

Prints {"sysadmin_key", "editor_key"}. The datastore's permissions must be set by a superuser; their SQL is written to the file
that the second argument names.
"""

import json
import sys
from pathlib import Path

from ckan.cli import load_config
from ckan.config.middleware import make_app


def main(configuration: str, permissions: str) -> None:
    app = make_app(load_config(configuration))
    from ckan import model
    from ckan.cli.db import _run_migrations
    from ckan.plugins.toolkit import config, get_action
    from ckanext.datastore.cli import permissions_sql

    with app._wsgi_app.test_request_context():
        model.repo.init_db()
        _run_migrations("activity", None, True)
        Path(permissions).write_text(permissions_sql("ckan", "datastore", "ckan", "datastore", "datastore_reader"))
        site = {"ignore_auth": True, "user": get_action("get_site_user")({"ignore_auth": True}, {})["name"]}
        keys = {}
        for name, is_sysadmin in (("sam", True), ("edna", False)):
            get_action("user_create")(
                dict(site), {"name": name, "email": f"{name}@city.example", "password": "only for tests", "sysadmin": is_sysadmin}
            )
            user = model.User.get(name)
            user.sysadmin = is_sysadmin
            model.Session.commit()
            keys[name] = get_action("api_token_create")({**site, "user": name}, {"user": name, "name": "tests"})["token"]
        get_action("organization_create")(
            {**site, "user": "sam"}, {"name": "city", "title": "City", "users": [{"name": "edna", "capacity": "editor"}]}
        )
        assert config["ckan.site_id"]
    print(json.dumps({"sysadmin_key": keys["sam"], "editor_key": keys["edna"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
