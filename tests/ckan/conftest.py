"""The real CKAN is at hand for every test of this folder."""

from tests.ckan.real import ckan_server, real_ckan, testrun_uid_or_pid  # noqa: F401  fixtures
