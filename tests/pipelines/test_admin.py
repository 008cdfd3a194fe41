"""The admin: the provider's form grows from its kind, secrets go in and never come out, history is read-only, verbs are actions."""

import re

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from catalog.models import AuditEntry, CatalogEntry, Dataset
from pipelines import secrets
from pipelines.connectors.base import REGISTRY, Connector, Parameter
from pipelines.errors import SetupError
from pipelines.forms import PipelineForm
from pipelines.models import ImportLog, Pipeline, Provider, RejectedRow, Run, ScheduleBlock, State
from pipelines.stages.release import ATD_PRIVATE, ATD_TRIPS
from tests import world
from tests.web import plain_web  # noqa: F401

SECRET = "correct horse battery staple"


@pytest.fixture
def kind(monkeypatch):
    """A kind of provider with one of each: a needed parameter, one with a default, and two secrets."""

    class Ferry(Connector):
        kind, label, can_fetch = "test-ferry", "Ferry counts", True
        parameters = (
            Parameter("pier", "Pier", required=True),
            Parameter("lane", "Lane", default="north"),
            Parameter("token", "Token", secret=True, required=True),
            Parameter("spare", "Spare key", secret=True),
        )
        asked: list = []

        def test(self):
            self.asked.append(self.account.secrets["token"])
            if self.account.parameters["pier"] == "9":
                raise SetupError(f"Pier 9 refused {self.account.secrets['token']}.", next_step="Ask for another pier.")
            return f"Pier {self.account.parameters['pier']} answers."

    yield Ferry
    del REGISTRY["test-ferry"]


@pytest.fixture
def people(db):
    return world.build(nothing=True)


@pytest.fixture
def steward(client, people):
    client.force_login(people.steward)
    return client


def filled(**more):
    return {
        "title": "Harbour", "slug": "harbour", "base_url": "https://harbour.example", "time_zone": "America/Chicago", "max_parallel": "2",
        "is_active": "on", "contact": "", "parameter_pier": "4", "parameter_lane": "north", "secret_token": SECRET, "secret_spare": "", **more,
    }  # fmt: skip


def add(client, **more):
    return client.post(reverse("admin:pipelines_provider_add") + "?kind=test-ferry", filled(**more))


def change(client, provider, **more):
    values = {**filled(secret_token=""), **more}
    values.pop("slug")
    return client.post(reverse("admin:pipelines_provider_change", args=[provider.pk]), values)


def form_of(client, provider):
    return client.get(reverse("admin:pipelines_provider_change", args=[provider.pk])).content.decode()


# the form of a provider


def test_the_kind_is_chosen_first_and_every_kind_is_offered(steward, kind):
    text = steward.get(reverse("admin:pipelines_provider_add")).content.decode()
    assert "Which kind of provider?" in text
    assert all(f"?kind={name}" in text for name in REGISTRY) and "Ferry counts" in text and "Token (secret)" in text


def test_the_form_has_a_field_for_each_thing_that_the_kind_declares(steward, kind):
    text = steward.get(reverse("admin:pipelines_provider_add"), {"kind": "test-ferry"}).content.decode()
    assert all(f'name="{name}"' in text for name in ("parameter_pier", "parameter_lane", "secret_token", "secret_spare"))
    assert 'value="north"' in text and 'name="clear_token"' not in text


def test_what_is_entered_is_stored_and_the_secret_is_sealed(steward, kind):
    assert add(steward).status_code == 302
    made = Provider.objects.get(slug="harbour")
    assert (made.kind, made.parameters) == ("test-ferry", {"pier": "4", "lane": "north"})
    assert made.secrets["token"].startswith("fernet:") and secrets.reveal(made.secrets["token"]) == SECRET
    assert list(made.secrets) == ["token"]


def test_a_secret_never_comes_back_out(steward, kind):
    add(steward)
    made = Provider.objects.get(slug="harbour")
    pages = [form_of(steward, made), steward.get(reverse("admin:pipelines_provider_history", args=[made.pk])).content.decode()]
    pages += [steward.get(reverse("admin:pipelines_provider_changelist")).content.decode(), steward.get(reverse("audit")).content.decode()]
    for text in pages:
        assert SECRET not in text and made.secrets["token"] not in text
    assert "Set (••••••)" in pages[0]
    assert not any(SECRET in str(line.details) + line.result for line in AuditEntry.objects.all())


def test_a_secret_is_not_shown_again_even_when_the_form_is_refused(steward, kind):
    reply = add(steward, parameter_pier="")
    assert reply.status_code == 200 and SECRET not in reply.content.decode() and not Provider.objects.exists()


def test_an_empty_secret_keeps_what_is_stored(steward, kind):
    add(steward)
    before = Provider.objects.get(slug="harbour").secrets
    assert change(steward, Provider.objects.get(slug="harbour"), title="Harbour two").status_code == 302
    after = Provider.objects.get(slug="harbour")
    assert after.title == "Harbour two" and after.secrets == before


def test_a_ticked_forget_removes_a_secret_and_a_needed_one_is_asked_for(steward, kind):
    add(steward, secret_spare="two")
    made = Provider.objects.get(slug="harbour")
    assert change(steward, made, clear_spare="on").status_code == 302
    made.refresh_from_db()
    assert set(made.secrets) == {"token"}
    reply = change(steward, made, clear_token="on")
    assert reply.status_code == 200 and "Token is needed." in reply.content.decode()
    made.refresh_from_db()
    assert set(made.secrets) == {"token"}


def test_a_new_value_replaces_a_secret_and_a_name_of_the_environment_stays_a_name(steward, kind):
    add(steward)
    made = Provider.objects.get(slug="harbour")
    change(steward, made, secret_token="env:FERRY_TOKEN")
    made.refresh_from_db()
    assert made.secrets["token"] == "env:FERRY_TOKEN" and "Set (env:FERRY_TOKEN)" in form_of(steward, made)


def test_a_needed_parameter_is_asked_for(steward, kind):
    assert "This field is required" in add(steward, parameter_pier="").content.decode()
    assert "Token is needed." in add(steward, secret_token="").content.decode()


def test_a_provider_whose_connector_is_gone_can_still_be_looked_at(steward):
    lost = Provider.objects.create(slug="lost", title="Lost", kind="telex", base_url="x", secrets={"a": "fernet:abc"})
    text = form_of(steward, lost)
    assert "no connector of this kind is installed" in text and "fernet:abc" not in text
    reply = steward.post(
        reverse("admin:pipelines_provider_change", args=[lost.pk]), {"title": "L", "base_url": "x", "time_zone": "UTC", "max_parallel": "1"}
    )
    assert reply.status_code == 200 and "no connector is of the kind" in reply.content.decode()


# Test connection


def test_the_button_asks_and_shows_the_answer(steward, kind):
    add(steward)
    made = Provider.objects.get(slug="harbour")
    assert reverse("admin:pipelines_provider_test", args=[made.pk]) in form_of(steward, made)
    text = steward.post(reverse("admin:pipelines_provider_test", args=[made.pk]), follow=True).content.decode()
    assert "Harbour: Pier 4 answers." in text and kind.asked == [SECRET]
    assert AuditEntry.objects.get(verb="test").target == "harbour"


def test_looking_at_a_page_never_asks_an_outside_system(steward, kind):
    kind.asked.clear()
    add(steward)
    made = Provider.objects.get(slug="harbour")
    form_of(steward, made)
    steward.get(reverse("admin:pipelines_provider_test", args=[made.pk]), follow=True)
    assert kind.asked == []


def test_a_refusal_is_shown_in_its_words_without_the_secret(steward, kind):
    add(steward, parameter_pier="9")
    made = Provider.objects.get(slug="harbour")
    text = steward.post(reverse("admin:pipelines_provider_test", args=[made.pk]), follow=True).content.decode()
    assert "Pier 9 refused" in text and "Ask for another pier." in text and SECRET not in text
    assert SECRET not in AuditEntry.objects.get(verb="test").result


def test_the_action_tests_the_chosen_ones(steward, kind):
    add(steward)
    made = Provider.objects.get(slug="harbour")
    values = {"action": "test_connections", "_selected_action": [made.pk]}
    assert "Pier 4 answers." in steward.post(reverse("admin:pipelines_provider_changelist"), values, follow=True).content.decode()


def test_only_who_may_change_a_provider_may_test_it(client, people, kind):
    client.force_login(people.steward)
    add(client)
    made = Provider.objects.get(slug="harbour")
    kind.asked.clear()
    User.objects.filter(username="operator").update(is_staff=True)
    client.force_login(User.objects.get(username="operator"))
    assert client.post(reverse("admin:pipelines_provider_test", args=[made.pk])).status_code == 403 and kind.asked == []


# edits leave a line in the audit


def test_an_edit_says_which_field_went_from_what_to_what(steward):
    made = world.dataset("trees", "Trees", refresh_rate="weekly")
    values = {
        "title": "Trees", "description": "", "tags": "", "department": "Parks", "steward": made.steward, "steward_email": made.steward_email,
        "refresh_rate": "daily", "promise_time": "", "access": "public", "licence": made.licence,
        "columns-TOTAL_FORMS": "0", "columns-INITIAL_FORMS": "0",
    }  # fmt: skip
    assert steward.post(reverse("admin:catalog_dataset_change", args=[made.pk]), values).status_code == 302
    line = AuditEntry.objects.get(kind="dataset", target="trees")
    assert (line.actor, line.verb) == ("steward", "edit")
    assert line.details["changed"] == {"department": ["Transportation", "Parks"], "refresh_rate": ["weekly", "daily"]}
    steward.post(reverse("admin:catalog_dataset_change", args=[made.pk]), values)
    assert AuditEntry.objects.filter(kind="dataset").count() == 1, "a save that changes nothing is no act"


def test_a_changed_word_of_the_dictionary_is_in_the_audit(steward):
    made = world.dataset("trees", "Trees")
    column = made.columns.create(name="height", position=0)
    values = {
        "title": "Trees", "department": made.department, "steward": made.steward, "steward_email": made.steward_email,
        "refresh_rate": "irregular", "access": "public", "licence": made.licence, "columns-TOTAL_FORMS": "1", "columns-INITIAL_FORMS": "1",
        "columns-0-id": column.pk, "columns-0-dataset": made.pk, "columns-0-position": "0", "columns-0-name": "height", "columns-0-type": "text",
        "columns-0-label": "Height", "columns-0-description": "In feet.", "columns-0-is_published": "on",
    }  # fmt: skip
    assert steward.post(reverse("admin:catalog_dataset_change", args=[made.pk]), values).status_code == 302
    assert AuditEntry.objects.get(kind="dataset").details["changed"] == {"column height": ["label", "description"]}


def test_a_secret_is_only_called_set_in_the_audit(steward, kind):
    add(steward)
    change(steward, Provider.objects.get(slug="harbour"), secret_token="another", max_parallel="3")
    line = AuditEntry.objects.filter(kind="provider", verb="edit").get()
    assert line.details["changed"] == {"max_parallel": ["2", "3"], "token": "secret set"}


# pipelines


#: How it reads, what it does unasked, how it publishes: as a new pipeline's form brings them.
WAYS = {"overlap_minutes": "1440", "compare_days": "7", "gone_rows": "keep", "drift": "widen", "watch_volume": "on", "portal_mode": "upsert"}
#: What the public gets to see.
WAYS |= {"release": "[]", "private_columns": "", "release_k": "0"}
#: No areas to look up.
WAYS |= {"enrichments-TOTAL_FORMS": "0", "enrichments-INITIAL_FORMS": "0"}


def pipeline_values(one: Pipeline, **more):
    return {
        **WAYS,
        "title": one.title, "dataset": one.dataset_id, "provider": one.provider_id, "resource": one.resource, "format": one.format,
        "stages": one.stages, "cadence": one.cadence, "due_time": "05:00", "settle_minutes": "0", "time_zone": one.time_zone, "starts_on": "",
        "key": ", ".join(one.key), "window_column": one.window_column, "version_column": "", "columns": ", ".join(one.columns), "types": "{}",
        "page_size": "50000", "pages_in_flight": "3", "warehouse": "default", "table": one.table, "load_mode": one.load_mode,
        "portal": one.portal_id or "", "portal_resource": one.portal_resource, "publish_chunk": "10000", "priority": "0", "max_attempts": "5",
        "deadline_minutes": "60", "after_steps-TOTAL_FORMS": "0", "after_steps-INITIAL_FORMS": "0", **more,
    }  # fmt: skip


@pytest.fixture
def trees(people):
    world.provider("portal", "Portal")
    return world.pipeline("trees", "Street trees", world.provider("parks", "Parks"), world.dataset("street-trees", "Street trees"), world.SATURDAY)


def test_a_pipeline_is_saved_with_its_lists_as_words(steward, trees):
    address = reverse("admin:pipelines_pipeline_change", args=[trees.pk])
    assert steward.post(address, pipeline_values(trees, columns="id, height,\nspecies", key="id")).status_code == 302
    trees.refresh_from_db()
    assert trees.columns == ["id", "height", "species"] and trees.key == ["id"] and trees.slug == "trees"


def test_how_it_reads_what_it_does_unasked_and_how_it_publishes_are_edited_in_groups_that_say_when_they_count(steward, trees):
    address = reverse("admin:pipelines_pipeline_change", args=[trees.pk])
    text = steward.get(address).content.decode()
    for words in (
        "Reading: how much at a time",
        "Rows gone and changed columns",
        "only mean something then",
        "Only with a watermark",
        "lies in its span",
    ):
        assert words in text, words
    wish = {"window_column": "", "watermark_column": "height", "overlap_minutes": "30", "since": "2020-01-01", "compare_days": "3"}
    wish |= {"gone_rows": "delete", "drift": "stop", "watch_volume": "", "portal_mode": "replace"}
    assert steward.post(address, pipeline_values(trees, **wish)).status_code == 302
    trees.refresh_from_db()
    assert (trees.watermark_column, trees.overlap_minutes, trees.since, trees.compare_days) == ("height", 30, "2020-01-01", 3)
    assert (trees.gone_rows, trees.drift, trees.watch_volume, trees.portal_mode) == ("delete", "stop", False, "replace")
    assert "the first block reads rows at or after 2020-01-01" in steward.get(address).content.decode()
    entry = AuditEntry.objects.filter(kind="pipeline", target="trees").first()
    assert entry.details["changed"]["gone_rows"] == ["keep", "delete"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"watermark_column": "height"}, "not by both"),
        ({"key": ""}, "needs a key"),
        ({"portal": ""}, "publish stage needs a portal"),
        ({"types": '{"height": "colour"}'}, "is not one of"),
        ({"table": "drop table x"}, "small letters, digits and underscores"),
        ({"time_zone": "Mars/Base"}, "is not a time zone"),
        ({"stages": []}, "This field is required"),
        ({"release": '[{"column": "pond", "from": "id", "rule": "shuffle"}]'}, "there is no rule &#x27;shuffle&#x27;"),
        ({"release": '[{"column": "id", "from": "id"}]', "private_columns": "id"}, "would let out the private column id"),
        ({"release": '"as-we-like"'}, "A release is a list of columns"),
        ({"warehouse": "elsewhere"}, "Select a valid choice"),
    ],
)
def test_a_pipeline_that_cannot_work_is_refused_in_words(steward, trees, wrong, said):
    reply = steward.post(reverse("admin:pipelines_pipeline_change", args=[trees.pk]), pipeline_values(trees, **wrong))
    assert reply.status_code == 200 and said in reply.content.decode()


def test_a_ready_release_is_named_and_brings_its_private_columns(steward, trees):
    address = reverse("admin:pipelines_pipeline_change", args=[trees.pk])
    assert steward.post(address, pipeline_values(trees, key="provider_id, trip_id", release='"atd-trips"', release_k="10")).status_code == 302
    trees.refresh_from_db()
    assert (trees.release, trees.private_columns, trees.release_k) == (ATD_TRIPS, ATD_PRIVATE, 10)
    assert steward.post(address, pipeline_values(trees, key="id", release="")).status_code == 302
    trees.refresh_from_db()
    assert trees.release == []


def test_the_next_three_blocks_are_shown_and_none_by_hand(steward, trees):
    address = reverse("admin:pipelines_pipeline_change", args=[trees.pk])
    assert len(re.findall(r"<li>[^<]+, due [^<]+</li>", steward.get(address).content.decode())) == 3
    Pipeline.objects.filter(pk=trees.pk).update(cadence="manual")
    assert "it only runs by hand" in steward.get(address).content.decode()


@pytest.mark.parametrize("cadence", ["hourly", "daily", "weekly", "monthly"])
def test_every_cadence_has_a_next_block(trees, cadence):
    from pipelines.admin import next_windows

    trees.cadence = cadence
    coming = next_windows(trees, world.SATURDAY)
    assert len(coming) == 3 and all(due > world.SATURDAY for _, due in coming)
    assert coming == sorted(coming, key=lambda one: one[1])


# history


@pytest.fixture
def city(db):
    return world.build()


@pytest.fixture
def root(client, city):
    client.force_login(User.objects.create_superuser("root", password=world.PASSWORD))
    return client


@pytest.mark.parametrize("model", [ScheduleBlock, Run, ImportLog, RejectedRow, CatalogEntry, AuditEntry])
def test_history_can_be_looked_at_and_not_changed_even_by_root(root, model):
    name = f"{model._meta.app_label}_{model._meta.model_name}"
    one = model.objects.order_by("pk").last()
    assert root.get(reverse(f"admin:{name}_changelist")).status_code == 200
    text = root.get(reverse(f"admin:{name}_change", args=[one.pk])).content.decode()
    assert 'name="_save"' not in text
    assert root.get(reverse(f"admin:{name}_add")).status_code == 403
    assert root.post(reverse(f"admin:{name}_delete", args=[one.pk]), {"post": "yes"}).status_code == 403
    assert root.post(reverse(f"admin:{name}_change", args=[one.pk]), {"state": "done"}).status_code == 403
    assert model.objects.filter(pk=one.pk).exists()


def test_what_history_hangs_on_cannot_be_deleted(root, city):
    for model, one in ((Dataset, "catalog_dataset"), (Pipeline, "pipelines_pipeline"), (Provider, "pipelines_provider")):
        made = {
            Dataset: Dataset.objects.get(slug="311-requests"),
            Pipeline: city.pipelines["requests"],
            Provider: city.pipelines["requests"].provider,
        }[model]
        assert root.post(reverse(f"admin:{one}_delete", args=[made.pk]), {"post": "yes"}).status_code == 403
        values = {"action": "delete_selected", "_selected_action": [made.pk], "post": "yes"}
        root.post(reverse(f"admin:{one}_changelist"), values)
        assert model.objects.filter(pk=made.pk).exists()


def test_the_pulse_and_the_queue_are_not_in_the_admin(root):
    text = root.get(reverse("admin:index")).content.decode()
    assert "Pulse" not in text and "Queued" not in text and "Scheduled task" not in text


# verbs on blocks


@pytest.fixture
def quiet(monkeypatch):
    rung = []
    monkeypatch.setattr("pipelines.planner.ring", lambda block_id: rung.append(block_id) or 1)
    return rung


def act(client, action, blocks, **more):
    values = {"action": action, "_selected_action": [block.pk for block in blocks], **more}
    return client.post(reverse("admin:pipelines_scheduleblock_changelist"), values, follow=True).content.decode()


def test_an_action_asks_first_and_does_nothing_yet(root, city, quiet):
    failed = city.blocks["failed"]
    text = act(root, "force", [failed])
    assert "Force these blocks" in text and "nothing has started" in text
    failed.refresh_from_db()
    assert failed.state == State.FAILED and quiet == []


def test_an_action_says_how_many_it_moved_and_why_it_refused_others(root, city, quiet):
    failed, running = city.blocks["failed"], city.blocks["running"]
    text = act(root, "run_now", [failed, running], confirmed="yes", reason="vendor is back")
    assert "Moved 1, refused 1" in text and f"block {running.pk}: " in text
    failed.refresh_from_db()
    assert (failed.state, failed.asked_by, failed.asked_because) == (State.WAITING, "root", "vendor is back") and quiet == [failed.pk]


def test_hold_and_cancel_go_through_the_same_doors(root, city, quiet):
    waiting, running = city.blocks["waiting"], city.blocks["running"]
    assert "Moved 1, refused 1" in act(root, "hold", [waiting, running], confirmed="yes")
    assert "Moved 1, refused 0" in act(root, "cancel", [running], confirmed="yes")
    waiting.refresh_from_db()
    running.refresh_from_db()
    assert waiting.state == State.HELD and running.cancel_asked_by == "root"
    assert set(AuditEntry.objects.filter(actor="root").values_list("verb", flat=True)) == {"hold", "cancel"}


def test_an_action_on_production_asks_why(root, city, quiet, settings):
    settings.ENVIRONMENT = "prod"
    text = act(root, "run_now", [city.blocks["failed"]], confirmed="yes")
    assert "every act leaves its reason" in text and quiet == []


def test_a_steward_without_operate_has_no_verbs(client, city, quiet):
    client.force_login(city.steward)
    text = client.get(reverse("admin:pipelines_scheduleblock_changelist")).content.decode()
    assert 'value="run_now"' not in text
    act(client, "run_now", [city.blocks["failed"]], confirmed="yes")
    city.blocks["failed"].refresh_from_db()
    assert city.blocks["failed"].state == State.FAILED and quiet == []


def test_no_page_of_the_admin_carries_a_script_or_style_of_its_own(root, city):
    pages = [
        reverse("admin:index"), reverse("admin:pipelines_provider_add"), reverse("admin:pipelines_provider_add") + "?kind=socrata",
        reverse("admin:pipelines_pipeline_change", args=[city.pipelines["requests"].pk]), reverse("admin:pipelines_scheduleblock_changelist"),
        reverse("admin:catalog_dataset_change", args=[Dataset.objects.get(slug="311-requests").pk]),
    ]  # fmt: skip
    for page in pages:
        reply = root.get(page)
        text = reply.content.decode()
        assert reply.status_code == 200 and not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>", text)
        assert ' style="' not in text and "<style" not in text and not re.search(r'\son\w+="', text)


def test_a_new_pipeline_has_its_usual_stages_ticked():
    assert PipelineForm().initial["stages"] == Pipeline().stages


def test_a_stored_secret_does_not_follow_a_provider_to_another_host(steward, kind):
    add(steward)
    made = Provider.objects.get(slug="harbour")
    told = change(steward, made, base_url="https://elsewhere.example").content.decode()
    assert "enter the secret again" in told
    made.refresh_from_db()
    assert "elsewhere" not in made.base_url


def test_a_provider_is_not_given_a_secret_of_the_program_itself(steward, kind):
    assert "is a secret of this program itself" in add(steward, secret_token="env:SECRET_KEY").content.decode()
    assert not Provider.objects.filter(slug="harbour").exists()


# a new pipeline, and a table that several load


def new_pipeline(**more):
    return {
        **WAYS,
        "title": "Trees 2026", "slug": "trees-2026", "dataset": Dataset.objects.get(slug="street-trees").pk,
        "provider": Provider.objects.get(slug="parks").pk, "resource": "abcd-1234", "format": "csv", "stages": ["extract", "load"],
        "cadence": "daily", "settle_minutes": "0", "time_zone": "America/Chicago", "key": "id", "types": "{}", "page_size": "50000",
        "pages_in_flight": "3",
        "warehouse": "default", "table": "", "load_mode": "upsert", "publish_chunk": "10000", "priority": "0", "max_attempts": "5",
        "deadline_minutes": "60", "after_steps-TOTAL_FORMS": "0", "after_steps-INITIAL_FORMS": "0", **more,
    }  # fmt: skip


def test_a_pipeline_whose_table_is_not_named_loads_one_of_its_slug(root):
    reply = root.post(reverse("admin:pipelines_pipeline_add"), new_pipeline())
    assert reply.status_code == 302, reply.context["adminform"].form.errors
    assert Pipeline.objects.get(slug="trees-2026").table == "trees_2026"


def test_what_a_format_wants_to_know_is_names_and_values_and_raw_names_stay_when_nobody_says_them(root):
    given = {"options": '{"area": "Austin", "minutes": 15}', "inventory": "bt", "data_source": "Bluetooth", "raw_names": "atd-data-lake"}
    assert root.post(reverse("admin:pipelines_pipeline_add"), new_pipeline(**given)).status_code == 302
    made = Pipeline.objects.get(slug="trees-2026")
    assert (made.options, made.inventory, made.data_source, made.raw_names) == ({"area": "Austin", "minutes": 15}, "bt", "Bluetooth", "atd-data-lake")
    change = reverse("admin:pipelines_pipeline_change", args=[made.pk])
    assert root.post(change, new_pipeline(options="", inventory="bt", data_source="Bluetooth")).status_code == 302
    made.refresh_from_db()
    assert (made.options, made.raw_names) == ({}, "atd-data-lake")
    refused = root.post(change, new_pipeline(options="[1]"))
    assert refused.status_code == 200 and "Give names and values" in str(refused.context["adminform"].form.errors)


@pytest.mark.parametrize(("slug", "table"), [("Street-Trees", "street_trees"), ("311-calls", "_311_calls"), ("a" * 80, "a" * 62)])
def test_the_table_of_a_slug_is_a_name_that_a_warehouse_accepts(slug, table):
    assert Pipeline.table_of(slug) == table


def test_a_new_pipeline_keeps_the_time_of_its_provider_or_else_of_the_city(root, settings):
    settings.TIME_ZONE = "America/Toronto"
    parks = Provider.objects.get(slug="parks")
    assert PipelineForm().initial["time_zone"] == "America/Toronto"
    text = root.get(reverse("admin:pipelines_pipeline_add"), {"provider": parks.pk}).content.decode()
    assert 'name="time_zone" value="America/Chicago"' in text
    assert PipelineForm(initial={"provider": "no number"}).initial["time_zone"] == "America/Toronto"
    text = root.get(reverse("admin:pipelines_provider_add"), {"kind": "socrata"}).content.decode()
    assert 'name="time_zone" value="America/Toronto"' in text


def test_the_form_says_who_else_loads_the_table_and_where_the_keys_differ(root, city):
    trees, pets = city.pipelines["trees"], city.pipelines["pets"]
    form = reverse("admin:pipelines_pipeline_change", args=[pets.pk])
    assert "no other pipeline" in root.get(form).content.decode()
    Pipeline.objects.filter(pk=trees.pk).update(table=pets.table, key=pets.key)
    text = root.get(form).content.decode()
    assert "of the dataset Street trees" in text and "names a row by" not in text
    Pipeline.objects.filter(pk=trees.pk).update(key=["tree", "year"])
    assert "It names a row by tree, year, this one by id" in root.get(form).content.decode()


# words


@pytest.mark.parametrize("model", [ScheduleBlock, Run, ImportLog, RejectedRow, CatalogEntry, AuditEntry, Pipeline, Provider, Dataset])
def test_lists_have_heads_in_words(root, model):
    text = root.get(reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")).content.decode()
    heads = {re.sub(r"<[^>]+>", "", head).strip() for head in re.findall(r'<div class="text">(.*?)</div>', text, re.S)}
    assert heads and not heads & {"PK", "Pk", "At", "AT", "Block id"} and not any("_" in head for head in heads), heads


def test_lists_write_figures_with_commas_and_moments_as_the_console_does(root, city):
    text = root.get(reverse("admin:pipelines_scheduleblock_changelist"), {"pipeline__id__exact": city.pipelines["trees"].pk}).content.decode()
    assert '<td class="field-rows">58,120</td>' in text and re.search(r'<td class="field-due_at">[A-Z][a-z]{2} \d+ 20\d\d, 02:00</td>', text)


def test_a_provider_that_is_only_being_made_is_not_said_to_lack_its_connector(root):
    text = root.get(reverse("admin:pipelines_provider_add"), {"kind": "socrata"}).content.decode()
    assert "no connector" not in text and "Add a provider: Socrata" in text
